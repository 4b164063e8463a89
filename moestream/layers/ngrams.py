"""What streams get of the last few tokens: rows of a table, which their n-grams are hashed to.

Source: llama.cpp, src/models/qwen4exp.cpp.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.layers.batch import Batch
from moestream.layers.cache import RecurrentShape, State
from moestream.layers.gated_streams import GatedShape, StreamNorm
from moestream.layers.row_table import RowTable
from moestream.layers.weights import PER_LAYER, Weights

_LEAST_ROOT = 1e-6


@dataclass(frozen=True, slots=True)
class NGramShape:
    """Grams of 2 to ``longest`` tokens are each looked up by heads of their own.

    A gram is the exclusive or of its tokens, each times its ``multipliers``; head h looks for it
    among ``sizes[h]`` rows from ``offsets[h]`` on. Nothing is seen beyond a token ``end``. What
    comes of it is convolved over ``kernel`` tokens that lie ``longest`` apart.
    """

    longest: int
    multipliers: tuple[int, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    end: int
    kernel: int

    @property
    def before(self) -> int:
        """Tokens before its own that a token's grams reach back to."""
        return self.longest - 1

    @property
    def history(self) -> int:
        """Rows that the convolution reaches back to."""
        return (self.kernel - 1) * self.longest

    def state(self, width: int) -> RecurrentShape:
        """The last tokens, each plus one so that zero is none, and what was convolved last."""
        return RecurrentShape(((self.before, 1), (self.history, width)))

    def rows(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which rows tokens want, of those after the first ``before``: (before + T,) -> (T, H).

        A token of -1 is none.
        """
        count = len(tokens) - self.before
        cut = np.zeros(count, np.bool_)
        mixed = tokens[self.before :].astype(np.uint64) * np.uint64(self.multipliers[0])
        heads = len(self.sizes) // self.before
        found = []
        for back in range(1, self.longest):
            there = tokens[self.before - back : self.before - back + count]
            cut = cut | (there < 0) | (there == self.end)
            seen = np.where(cut, self.end, there).astype(np.uint64)
            mixed = mixed ^ (seen * np.uint64(self.multipliers[back]))
            these = slice((back - 1) * heads, back * heads)
            sizes, offsets = (np.array(x[these], np.uint64) for x in (self.sizes, self.offsets))
            found.append(mixed[:, None] % sizes + offsets)
        return np.concatenate(found, axis=1).astype(np.int64)


class NGrams:
    """Rows, projections, gates by how well they go with each stream, convolution: (T, S, E)."""

    def __init__(
        self, weights: Weights, outside: Weights, shape: NGramShape, streams: GatedShape, place: int
    ) -> None:
        """Load the layer's weights; the table is ``outside`` it. ``place`` is that of its state."""
        self.backend, self.shape, self.streams, self.place = weights.backend, shape, streams, place
        size, wide = streams.size, streams.streams * streams.size
        self.table = RowTable(outside, PER_LAYER, size // len(shape.sizes))
        self.key = weights.matrix("ple_key.weight", wide, size)
        self.value = weights.matrix("ple_value.weight", size, size)
        self.key_norm, self.query_norm, self.conv_norm = (
            StreamNorm(weights, f"ple_norm_{name}.weight", streams)
            for name in ("key", "query", "conv")
        )
        self.kernel = weights.table("ple_conv1d.weight", wide, shape.kernel)
        self.same = self.backend.zeros((1, streams.streams, 1))

    def begin(
        self, tokens: NDArray[np.int32], batch: Batch, before: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:
        """Begin to read what tokens want; return them with those ``before``, for the next chunk.

        Without ``before``, each sequence's last tokens are those of its state.
        """
        found, seen = [], np.empty(0, np.int64)
        for part in batch.parts:
            past = before
            if past is None:
                kept = self.backend.to_numpy(part.cache.state(self.place)[0])
                past = kept[:, 0].astype(np.int64) - 1
            reach = past[len(past) - self.shape.before :]
            seen = np.concatenate([reach, tokens[part.rows].astype(np.int64)])
            found.append(self.shape.rows(seen))
        batch.looked_up = self.table.begin(np.concatenate(found), len(tokens))
        batch.tokens = tokens
        return seen

    def __call__(self, streams: Array, batch: Batch) -> Array:
        """The streams, and what is added to each."""
        ops, size = self.backend, self.streams.size
        assert batch.looked_up is not None, "begun with the pass"
        rows = batch.looked_up.take().reshape(len(streams), size)
        key, value = ops.linears(rows, [self.key, self.value], [None, None])
        key = self.key_norm(key.reshape(streams.shape))
        fits = (key * self.query_norm(streams)).sum(axis=-1) * (1 / math.sqrt(size))
        logits = ops.signed_root(fits, _LEAST_ROOT)[..., None]
        gated = ops.sigmoid_scale(value[:, None] + self.same, logits)
        normed = self.conv_norm(gated).reshape(len(streams), -1)
        one = ops.zeros((len(streams), 1)) + 1
        ids = ops.scale_rows(one, batch.tokens.astype(np.float32) + 1)
        convolved = batch.each(self.place, self._recur, normed, ids)
        return streams + (gated + convolved.reshape(streams.shape))

    def _recur(self, state: State, x: Array, ids: Array) -> Array:
        """Convolve: (T, S * E); brings the state up to the end."""
        ops, (last, past) = self.backend, state
        seen = ops.stack_rows([past, x])
        out = seen[: len(x)] * self.kernel[:, 0]
        for tap in range(1, self.shape.kernel):
            start = tap * self.shape.longest
            out = out + seen[start : start + len(x)] * self.kernel[:, tap]
        past[:] = seen[len(x) :]
        last[:] = ops.stack_rows([last, ids])[len(ids) :]
        return ops.sigmoid_scale(out, out)
