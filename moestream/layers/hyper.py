"""Several residual streams in place of one, and what a branch reads of them and writes to them.

Source: arXiv 2409.19606; llama.cpp, src/models/hy-v4.cpp.
"""

from dataclasses import dataclass

from moestream.backends import Array, Backend
from moestream.layers.norm import UnweightedRMSNorm
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class HyperShape:
    """So many ``streams`` of rows of ``size``; ``eps`` is of the norm of all of them.

    None is read or written by a share of less than ``least``; ``most`` is what is written at most,
    besides.
    """

    streams: int
    size: int
    eps: float
    least: float
    most: float


def in_each(backend: Backend, x: Array, streams: int) -> Array:
    """The same in each stream: (T, E) -> (T, S, E)."""
    return x[:, None] + backend.zeros((1, streams, 1))


class StreamReader:
    """One row of several streams, by shares that depend on all of them: (T, S, E) -> (T, E)."""

    kinds = 1

    def __init__(self, weights: Weights, name: str, shape: HyperShape) -> None:
        """Load the matrix of the shares' logits, and what scales them and is added."""
        self.backend, self.shape = weights.backend, shape
        size = shape.streams * shape.size
        self.norm = UnweightedRMSNorm(self.backend, size, shape.eps)
        self.mix = weights.matrix(f"{name}_fn.weight", self.kinds * shape.streams, size)
        self.scale = weights.vector(f"{name}_scale.weight", self.kinds)
        self.base = weights.vector(f"{name}_base.weight", self.kinds * shape.streams)
        self.ones = self.backend.zeros((shape.streams,)) + 1

    def logits(self, streams: Array) -> Array:
        """Of all kinds of shares: (T, S, E) -> (T, kinds * S)."""
        return self.backend.linear(self.norm(streams.reshape(len(streams), -1)), self.mix)

    def read(self, streams: Array, logits: Array) -> Array:
        """The sum of the streams, each by its share: (T, S, E) -> (T, E)."""
        shares = self.sigmoid(logits, 0) + self.shape.least
        total = streams[:, 0] * shares[:, :1]
        for i in range(1, self.shape.streams):
            total = total + streams[:, i] * shares[:, i : i + 1]
        return total

    def sigmoid(self, logits: Array, kind: int) -> Array:
        """Shares of one kind, in 0 to 1: (T, S)."""
        part = slice(kind * self.shape.streams, (kind + 1) * self.shape.streams)
        scaled = logits[:, part] * self.scale[kind : kind + 1] + self.base[part]
        return self.backend.sigmoid_scale(self.ones, scaled)


class HyperConnection(StreamReader):
    """What a branch reads, and how its result is added to each stream."""

    kinds = 2

    def write(self, streams: Array, added: Array, logits: Array) -> Array:
        """The streams with a branch's result, by shares: (T, S, E), (T, E) -> (T, S, E)."""
        shares = self.sigmoid(logits, 1) * self.shape.most + self.shape.least
        return streams + added[:, None] * shares[..., None]
