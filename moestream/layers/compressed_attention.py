"""Attention to a window and to compressed rows of what lies before, by one key/value head.

Source: DeepSeek-V4 (DeepSeek-AI, 2026); llama.cpp, src/models/deepseek4.cpp.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, AttentionRule, IndexQueries, Matrices
from moestream.backends.compressed import Stretches
from moestream.errors import ModelFormatError
from moestream.layers.batch import Batch
from moestream.layers.cache import CompressedShape, State, StateShape
from moestream.layers.indexer import IndexShape, check_turned
from moestream.layers.norm import RMSNorm, UnweightedRMSNorm
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights

_CHOSEN_SIZE = 4
"""Positions of the stretches of which some are chosen; those of longer ones are all seen."""


@dataclass(frozen=True, slots=True)
class CompressedSizes:
    """Heads of ``dim`` numbers; outputs of ``groups`` of them come from ``output_rank`` numbers.

    ``window`` is how many positions a token sees as they are; ``index`` chooses among stretches.
    """

    heads: int
    dim: int
    query_rank: int
    groups: int
    output_rank: int
    window: int
    index: IndexShape

    def stretches(self, ratio: int) -> list[Stretches]:
        """Of a layer's rows, and where some are chosen, of the index's."""
        chosen = ratio == _CHOSEN_SIZE
        dims = [self.dim, self.index.dim] if chosen else [self.dim]
        return [Stretches(ratio, dim, overlap=chosen) for dim in dims]

    def read_bytes(self, ratio: int) -> int:
        """What attention takes of a stretch's row while it is seen: floats, twice, and scores."""
        made = self.stretches(ratio)
        floats = 2 * (self.dim + sum(rule.dim for rule in made))
        if len(made) > 1:
            floats += self.index.dim + 2 * self.index.heads + 4
        return 4 * floats

    def state(self, ratio: int) -> StateShape:
        """What a layer keeps, of stretches of ``ratio`` positions, 0 for none.

        A row a position, those of stretches behind it, and what the next ones are made of.
        """
        made = self.stretches(ratio) if ratio else []
        arrays = [(rule.reach, rule.dim * (1 + rule.overlap)) for rule in made for _ in range(2)]
        return CompressedShape(1, self.dim + sum(rule.dim for rule in made), 0, tuple(arrays))


class Compressor:
    """Values and scores of positions, and what becomes of the rows that are made of them."""

    def __init__(
        self, weights: Weights, name: str, hidden_size: int, rule: Stretches, eps: float
    ) -> None:
        width = rule.dim * (1 + rule.overlap)
        self.backend, self.rule = weights.backend, rule
        self.inner = [
            weights.matrix(f"{name}_{part}.weight", width, hidden_size) for part in ("kv", "gate")
        ]
        places = weights.table(f"{name}_ape.weight", rule.size, width)
        self.places = self.backend.to_numpy(places)
        """What is added to scores, by a position's place in its stretch."""
        self.norm = RMSNorm(weights, f"{name}_norm.weight", rule.dim, eps)

    def __call__(self, x: Array) -> list[Array]:
        """Values and scores of each row: (T, width) each."""
        return self.backend.linears(x, self.inner, [None, None])


class CompressedAttention:
    """Norm, queries, rotation, attention, rotation back, output projection: (T, E) -> (T, E).

    ``ratio`` is how many positions a stretch has, 0 where a layer sees its window alone.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        hidden_size: int,
        sizes: CompressedSizes,
        ratio: int,
        rope: Rope,
        eps: float,
    ) -> None:
        self.backend, self.sizes, self.rope = weights.backend, sizes, rope
        heads, dim, rank = sizes.heads, sizes.dim, sizes.query_rank
        self.norm = RMSNorm(weights, "attn_norm.weight", hidden_size, eps)
        self.q_a = weights.matrix("attn_q_a.weight", rank, hidden_size)
        self.q_a_norm = RMSNorm(weights, "attn_q_a_norm.weight", rank, eps)
        self.q = weights.matrix("attn_q_b.weight", heads * dim, rank)
        self.q_norm = UnweightedRMSNorm(self.backend, dim, eps)
        self.kv = weights.matrix("attn_kv.weight", dim, hidden_size)
        self.kv_norm = RMSNorm(weights, "attn_kv_a_norm.weight", dim, eps)
        self.output_a = _groups(weights, sizes)
        narrow = sizes.groups * sizes.output_rank
        self.output_b = weights.matrix("attn_output_b.weight", hidden_size, narrow)
        sinks = weights.vector("attn_sinks.weight", heads)
        self.rule = AttentionRule(dim**-0.5, sizes.window, sinks, value_dim=dim)
        self.compressors = [
            Compressor(weights, f"{name}_compressor", hidden_size, rule, eps)
            for name, rule in zip(
                ("attn", "indexer"), sizes.stretches(ratio) if ratio else (), strict=False
            )
        ]
        self.chooses = len(self.compressors) > 1
        if self.chooses:
            index = sizes.index
            check_turned(weights, index.dim, rope)
            self.index_q = weights.matrix("indexer.attn_q_b.weight", index.heads * index.dim, rank)
            self.index_weights = weights.matrix("indexer.proj.weight", index.heads, hidden_size)

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """Attend within each sequence; writes the rows to the caches."""
        ops, sizes = self.backend, self.sizes
        x = self.norm(x)
        angles = batch.angles(self.rope)
        asked = self.q_a_norm(ops.linear(x, self.q_a))
        q = ops.linear(asked, self.q).reshape(-1, sizes.heads, sizes.dim)
        q = self._turn(self.q_norm(q), angles)
        row = self._turn(self.kv_norm(ops.linear(x, self.kv))[:, None], angles)  # (T, 1, D)
        if self.compressors:
            index = self._index(x, asked, batch) if self.chooses else None
            rows = self._with_stretches(row, x, batch, layer)
            stretches = self.compressors[0].rule
            out = ops.compressed_attention(q, rows, batch.kv, layer, self.rule, stretches, index)
        else:
            out = ops.attention((q, row, None), batch.kv, layer, self.rule)
        back = angles[0] + 0, -angles[1]  # of their own: a backend may know angles by the first
        out = self._turn(out.reshape(q.shape), back).reshape(len(x), sizes.groups, -1)
        narrow = ops.heads_linear(out, self.output_a)
        return ops.linear(narrow.reshape(len(x), -1), self.output_b)

    def _turn(self, x: Array, angles: tuple[Array, Array]) -> Array:
        """The last numbers of each head."""
        ops = self.backend
        plain, turned = ops.split(x, x.shape[-1] - 2 * angles[0].shape[1])
        return ops.join(plain, ops.rope(turned, *angles, "interleaved"))

    def _index(self, x: Array, asked: Array, batch: Batch) -> IndexQueries:
        ops, index = self.backend, self.sizes.index
        queries = ops.linear(asked, self.index_q).reshape(-1, index.heads, index.dim)
        weights = ops.linear(x, self.index_weights) * (index.heads * index.dim) ** -0.5
        return IndexQueries(self._turn(queries, batch.angles(self.rope)), weights, index.most)

    def _with_stretches(self, row: Array, x: Array, batch: Batch, layer: int) -> Array:
        """Behind each row, those of the stretches that end there."""
        ops, positions = self.backend, batch.positions()
        given = [part for made in self.compressors for part in made(x)]
        pooled = batch.each(layer, self._pool, positions, *given)
        size = self.compressors[0].rule.size
        begun = self.rope(np.maximum(positions + 1 - size, 0))
        for made in self.compressors:
            one, pooled = ops.split(pooled, made.rule.dim)
            row = ops.join(row, self._turn(made.norm(one)[:, None], begun))
        return row

    def _pool(self, state: State, positions: NDArray[np.int64], *given: Array) -> Array:
        """What is made of each row's stretches, side by side, from all that is given in pairs."""
        ops, start = self.backend, int(positions[0])
        found: Any = None
        for number, made in enumerate(self.compressors):
            pair = slice(2 * number, 2 * number + 2)
            rule = made.rule
            values, scores = given[pair]
            one = ops.pool_stretches(values, scores, state[pair], made.places, start, rule)
            found = one if found is None else ops.join(found, one)
        return found


def _groups(weights: Weights, sizes: CompressedSizes) -> Matrices:
    """A matrix for each group of heads, which the file has one behind the other."""
    name, rank = "attn_output_a.weight", sizes.output_rank
    whole = weights.rows(name, sizes.heads * sizes.dim // sizes.groups)
    rows, columns = whole.shape
    if rows != sizes.groups * rank:
        raise ModelFormatError(
            f"{weights.file.path}: tensor {whole.name!r} has {rows} rows, expected {rank} for each "
            f"of {sizes.groups} groups"
        )
    return weights.backend.head_matrices(
        [
            replace(whole, shape=(rank, columns), data=whole.data[first : first + rank])
            for first in range(0, rows, rank)
        ]
    )
