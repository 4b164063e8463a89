"""Attention to blocks of positions that an indexer chooses: one choice a token, or one a head.

Source: llama.cpp, src/models/qwen4exp.cpp and minimax-m3.cpp.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from moestream.backends import Array, IndexQueries
from moestream.backends.sparse_blocks import BestOfBlocks, TurnedMeans
from moestream.backends.types import QKV
from moestream.layers.attention import Attention
from moestream.layers.batch import Batch
from moestream.layers.indexer import check_turned
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class BlockIndexShape:
    """Queries of ``heads`` of ``dim`` numbers choose ``most`` positions in blocks of ``size``.

    Where a head chooses for itself, the last ``local`` blocks are always among them.
    """

    heads: int
    dim: int
    most: int
    size: int
    local: int = 0


class IndexedAttention(Attention, ABC):
    """Grouped-query attention to what is chosen.

    What the index goes by lies behind each position's keys, a part behind each head's, where
    queries are zero.
    """

    def __init__(self, weights: Weights, *, index: BlockIndexShape, **common: Any) -> None:
        """Load the index, too; ``common`` is what ``Attention`` takes."""
        super().__init__(weights, **common)
        hidden, eps = common["hidden_size"], common["eps"]
        self.index = index
        queries = index.heads * index.dim
        self.index_q = weights.matrix("indexer.q_proj.weight", queries, hidden)
        self.index_k = weights.matrix("indexer.k_proj.weight", index.dim, hidden)
        self.index_q_norm, self.index_k_norm = (
            RMSNorm(weights, f"indexer.{name}_norm.weight", index.dim, eps) for name in "qk"
        )
        assert self.rope is not None, "queries are turned to their place"
        check_turned(weights, index.dim, self.rope)

    def attend(self, qkv: QKV, x: Array, batch: Batch, layer: int) -> Array:
        """See ``Attention.attend``."""
        ops, (q, k, v) = self.backend, qkv
        found, keys = ops.linears(x, [self.index_q, self.index_k], [None, None])
        behind = self.index.dim // self.num_kv_heads
        kept = self.kept(keys, batch).reshape(-1, self.num_kv_heads, behind)
        k = ops.join(k, kept)
        q = ops.join(q, ops.zeros((*q.shape[:2], behind)))
        queries = self.index_q_norm(found.reshape(-1, self.index.heads, self.index.dim))
        seen = ops.choose(self.asked(self._turned(queries, batch)), k, batch.kv, layer)
        return ops.attention((q, k, v), batch.kv, layer, self.rule, seen)

    @abstractmethod
    def kept(self, keys: Array, batch: Batch) -> Array:
        """What is kept of each row's key: (T, D) -> (T, D)."""

    @abstractmethod
    def asked(self, queries: Array) -> IndexQueries:
        """What normed and turned queries (T, HI, D) choose by."""

    def _turned(self, x: Array, batch: Batch) -> Array:
        assert self.rope is not None, "what asks and is asked is turned to its place"
        return self.backend.rope(x, *batch.angles(self.rope), self.rope_style)


class BlockAttention(IndexedAttention):
    """One choice for all heads, by keys of blocks that are made of positions' keys."""

    def __init__(self, weights: Weights, **common: Any) -> None:
        """See ``IndexedAttention``."""
        super().__init__(weights, **common)
        index, norm = self.index, self.index_k_norm
        weight = self.backend.to_numpy(norm.weight)
        assert self.rope is not None, "blocks are turned to their place"
        self.blocks = TurnedMeans(index.size, index.dim, weight, norm.eps, self.rope)

    def kept(self, keys: Array, batch: Batch) -> Array:
        """As they are: a block's is normed and turned."""
        return keys

    def asked(self, queries: Array) -> IndexQueries:
        """All heads weigh the same."""
        weights = self.backend.zeros(queries.shape[:2]) + 1
        return IndexQueries(queries, weights, self.index.most, self.blocks)


class HeadBlockAttention(IndexedAttention):
    """A choice for each key/value head, by the best of a block's keys."""

    def kept(self, keys: Array, batch: Batch) -> Array:
        """Normed and turned."""
        return self._turned(self.index_k_norm(keys)[:, None], batch)

    def asked(self, queries: Array) -> IndexQueries:
        """Products alone."""
        index, weights = self.index, self.backend.zeros(queries.shape[:2])
        blocks = BestOfBlocks(index.size, index.local)
        return IndexQueries(queries, weights, index.most, by_head=blocks)
