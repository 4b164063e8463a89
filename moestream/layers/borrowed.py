"""Attention to the keys and values of an earlier layer, which that one has projected.

Source: llama.cpp, src/models/gemma4.cpp; arXiv 2405.12981 (sharing of keys and values).
"""

from moestream.backends import Array, AttentionRule, RopeStyle
from moestream.backends.types import QKV
from moestream.layers.attention import Attention
from moestream.layers.batch import Batch
from moestream.layers.norm import RMSNorm
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights


class LendingAttention(Attention):
    """Attention whose keys and values later layers attend to, too."""

    def attend(self, qkv: QKV, x: Array, batch: Batch, layer: int) -> Array:
        """See ``Attention.attend``."""
        batch.lent[layer] = qkv[1], qkv[2]
        return super().attend(qkv, x, batch, layer)


class BorrowingAttention:
    """Norm, queries, rotation, attention to what layer ``of`` keeps, output: (T, E) -> (T, E)."""

    def __init__(
        self,
        weights: Weights,
        *,
        of: int,
        hidden_size: int,
        num_heads: int,
        head_dim: int,
        eps: float,
        rope: Rope,
        rope_style: RopeStyle,
        rule: AttentionRule,
    ) -> None:
        self.backend = weights.backend
        self.of, self.num_heads, self.head_dim = of, num_heads, head_dim
        self.rope, self.rope_style, self.rule = rope, rope_style, rule
        self.norm = RMSNorm(weights, "attn_norm.weight", hidden_size, eps)
        self.attn_q = weights.matrix("attn_q.weight", num_heads * head_dim, hidden_size)
        self.q_norm = RMSNorm(weights, "attn_q_norm.weight", head_dim, eps)
        self.attn_output = weights.matrix("attn_output.weight", hidden_size, num_heads * head_dim)

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """Attend within each sequence; what is written to the caches is there already."""
        ops = self.backend
        q = ops.linear(self.norm(x), self.attn_q).reshape(-1, self.num_heads, self.head_dim)
        q = ops.rope(self.q_norm(q), *batch.angles(self.rope), self.rope_style)
        out = ops.attention((q, *batch.lent[self.of]), batch.kv, self.of, self.rule)
        return ops.linear(out, self.attn_output)
