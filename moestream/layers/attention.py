"""Grouped-query self-attention with rotary positions."""

import math
from typing import Literal

import numpy as np

from moestream.backends import Array, AttentionRule, RopeStyle
from moestream.layers.batch import Batch
from moestream.layers.norm import RMSNorm, UnweightedRMSNorm
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights

QKNorm = Literal["none", "head", "head_turned", "whole"]
"""RMS norm of queries and keys: none, over each head, over each after it was turned to its
position, or over all heads together."""


class Attention:
    """Norm, projections, rotation, attention over the cache, output projection: (T, E) -> (T, E).

    Biases of the projections are used where the file has them. ``scale`` multiplies the scores, by
    default the head's width to the power of -0.5. ``window`` is how many positions a token sees, 0
    for all; ``sinks`` asks for a score of no value in each head's softmax. ``keys_as_values``:
    there is no ``attn_v``; what is projected to be keys is, before its norm and rotation, values
    too. ``norm_values``: head by head, without a weight. ``output_gate``: each head of the query
    projection is followed by a gate, by whose sigmoid the head's result is scaled.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        value_dim: int,
        eps: float,
        rope: Rope,
        rope_style: RopeStyle,
        qk_norm: QKNorm = "none",
        scale: float | None = None,
        window: int = 0,
        sinks: bool = False,
        keys_as_values: bool = False,
        norm_values: bool = False,
        output_gate: bool = False,
    ) -> None:
        self.backend = weights.backend
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.head_dim, self.value_dim = head_dim, value_dim
        self.rope, self.rope_style, self.qk_norm = rope, rope_style, qk_norm
        self.v_norm = UnweightedRMSNorm(self.backend, value_dim, eps) if norm_values else None
        queries, pairs = num_heads * head_dim, num_kv_heads * head_dim
        values, attended = num_kv_heads * value_dim, num_heads * value_dim
        self.norm = RMSNorm(weights, "attn_norm.weight", hidden_size, eps)
        self.attn_gate = self.attn_v = None
        if output_gate:
            rows = np.arange(2 * queries).reshape(num_heads, 2, head_dim)
            self.attn_q, self.attn_gate = (
                weights.matrix_rows("attn_q.weight", 2 * queries, hidden_size, part.ravel())
                for part in (rows[:, 0], rows[:, 1])
            )
            self.attn_k = weights.matrix("attn_k.weight", pairs, hidden_size)
            self.attn_v = weights.matrix("attn_v.weight", values, hidden_size)
        elif keys_as_values:
            self.attn_q = weights.matrix("attn_q.weight", queries, hidden_size)
            self.attn_k = weights.matrix("attn_k.weight", pairs, hidden_size)
        else:
            self.attn_q, self.attn_k, self.attn_v = weights.matrices(
                "attn_qkv.weight",
                {"attn_q.weight": queries, "attn_k.weight": pairs, "attn_v.weight": values},
                hidden_size,
            )
        self.attn_output = weights.matrix("attn_output.weight", hidden_size, attended)
        self.q_bias = weights.optional_vector("attn_q.bias", queries)
        self.k_bias = weights.optional_vector("attn_k.bias", pairs)
        self.v_bias = weights.optional_vector("attn_v.bias", values)
        self.output_bias = weights.optional_vector("attn_output.bias", hidden_size)
        self.rule = AttentionRule(
            1 / math.sqrt(head_dim) if scale is None else scale,
            window,
            weights.vector("attn_sinks.weight", num_heads) if sinks else None,
        )
        if qk_norm != "none":
            whole = qk_norm == "whole"
            self.q_norm = RMSNorm(
                weights, "attn_q_norm.weight", queries if whole else head_dim, eps
            )
            self.k_norm = RMSNorm(weights, "attn_k_norm.weight", pairs if whole else head_dim, eps)

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """Attend within each sequence; writes the rows' keys and values to the caches."""
        ops = self.backend
        x = self.norm(x)
        q, k, v = self._project(x)
        if self.qk_norm == "whole":
            q, k = self.q_norm(q), self.k_norm(k)
        q = q.reshape(-1, self.num_heads, self.head_dim)
        k = k.reshape(-1, self.num_kv_heads, self.head_dim)
        v = v.reshape(-1, self.num_kv_heads, self.value_dim)
        if self.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        if self.v_norm is not None:
            v = self.v_norm(v)
        angles = batch.angles(self.rope)
        q = ops.rope(q, *angles, self.rope_style)
        k = ops.rope(k, *angles, self.rope_style)
        if self.qk_norm == "head_turned":
            q, k = self.q_norm(q), self.k_norm(k)
        out = ops.attention(q, k, v, batch.kv, layer, self.rule)
        if self.attn_gate is not None:
            out = ops.sigmoid_scale(out, ops.linear(x, self.attn_gate))
        return ops.linear(out, self.attn_output, self.output_bias)  # (T, E)

    def _project(self, x: Array) -> list[Array]:
        """Queries, keys and values of normed input: (T, H * D), (T, K * D), (T, K * Dv)."""
        weights, biases = [self.attn_q, self.attn_k], [self.q_bias, self.k_bias]
        if self.attn_v is None:
            q, k = self.backend.linears(x, weights, biases)
            return [q, k, k]
        return self.backend.linears(x, [*weights, self.attn_v], [*biases, self.v_bias])
