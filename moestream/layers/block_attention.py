"""Attention to blocks of positions that an indexer chooses.

Source: llama.cpp, src/models/qwen4exp.cpp.
"""

from dataclasses import dataclass
from typing import Any

from moestream.backends import Array, IndexQueries
from moestream.backends.sparse_blocks import TurnedMeans
from moestream.backends.types import QKV
from moestream.layers.attention import Attention
from moestream.layers.batch import Batch
from moestream.layers.indexer import check_turned
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class BlockIndexShape:
    """Queries of ``heads`` of ``dim`` numbers choose ``most`` positions in blocks of ``size``."""

    heads: int
    dim: int
    most: int
    size: int


class BlockAttention(Attention):
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
        self.index_q_norm, k_norm = (
            RMSNorm(weights, f"indexer.{name}_norm.weight", index.dim, eps) for name in "qk"
        )
        assert self.rope is not None, "blocks are turned to their place"
        check_turned(weights, index.dim, self.rope)
        weight = self.backend.to_numpy(k_norm.weight)
        self.blocks = TurnedMeans(index.size, index.dim, weight, eps, self.rope)

    def attend(self, qkv: QKV, x: Array, batch: Batch, layer: int) -> Array:
        """See ``Attention.attend``."""
        ops, (q, k, v) = self.backend, qkv
        found, keys = ops.linears(x, [self.index_q, self.index_k], [None, None])
        behind = self.index.dim // self.num_kv_heads
        k = ops.join(k, keys.reshape(-1, self.num_kv_heads, behind))
        q = ops.join(q, ops.zeros((*q.shape[:2], behind)))
        queries = self.index_q_norm(found.reshape(-1, self.index.heads, self.index.dim))
        assert self.rope is not None, "queries are turned to their place"
        queries = ops.rope(queries, *batch.angles(self.rope), self.rope_style)
        weights = ops.zeros(queries.shape[:2]) + 1
        index = IndexQueries(queries, weights, self.index.most, self.blocks)
        seen = ops.choose(index, k, batch.kv, layer)
        return ops.attention((q, k, v), batch.kv, layer, self.rule, seen)
