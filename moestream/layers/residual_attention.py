"""Attention over depth: a branch reads of the stream, and of what it was at earlier layers.

A token's row is what was banked so far, oldest first, and behind it the running sum: (T, N, E).

Source: llama.cpp, src/models/kimi-k3.cpp.
"""

from moestream.backends import Array, Backend
from moestream.layers.norm import UnweightedRMSNorm
from moestream.layers.weights import Weights


class DepthReader:
    """One row of all that a token has, by the softmax of scores: (T, N, E) -> (T, E)."""

    def __init__(self, weights: Weights, name: str, size: int, eps: float) -> None:
        """Load what a normed row's score is the product with."""
        self.backend = weights.backend
        self.norm = UnweightedRMSNorm(self.backend, size, eps)
        self.score = weights.row(name, size)

    def __call__(self, rows: Array) -> Array:
        """The sum of the rows as they are, each by its share."""
        count, size = rows.shape[1:]
        if count == 1:
            return rows[:, 0]
        ops = self.backend
        scores = ops.linear(self.norm(rows.reshape(-1, size)), self.score)
        shares = ops.softmax(scores.reshape(-1, count))
        total = rows[:, 0] * shares[:, :1]
        for i in range(1, count):
            total = total + rows[:, i] * shares[:, i : i + 1]
        return total


def with_result(backend: Backend, rows: Array, added: Array, *, bank: bool) -> Array:
    """The rows with a branch's result (T, E): added to the sum, or the first of one anew.

    To ``bank`` leaves the sum as it was behind the others.
    """
    tokens, count, size = rows.shape
    flat = rows.reshape(tokens, -1)
    if bank:
        return backend.join(flat, added).reshape(tokens, count + 1, size)
    if count == 1:
        return backend.add(flat, added)[:, None]
    before, total = backend.split(flat, (count - 1) * size)
    return backend.join(before, backend.add(total, added)).reshape(rows.shape)
