"""Grouped-query self-attention, with rotary positions or without."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, AttentionRule, Matrix, RopeStyle
from moestream.backends.types import QKV
from moestream.errors import ModelFormatError
from moestream.layers.batch import Batch
from moestream.layers.norm import RMSNorm, UnweightedRMSNorm, norm_before
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights

QKNorm = Literal["none", "head", "head_turned", "whole", "unweighted_turned"]
"""RMS norm of queries and keys: none, over each head, over each after it was turned to its
position, over all heads together, or without a weight over each head after it was turned."""

Norm = RMSNorm | UnweightedRMSNorm
OutputGate = Literal["none", "joined", "sigmoid", "softplus"]
"""What scales the heads' results: nothing; the sigmoid of gates that lie beside each head's query;
or a function of a projection of its own (``attn_gate``), one gate a head or one a number."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """Queries grow with the logarithm of how many stretches of ``floor`` positions lie before."""

    scale: float
    floor: int
    offset: int = 0

    def __call__(self, positions: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Factors of each position's queries: (T,)."""
        stretches = (positions + self.offset) // self.floor
        factors: NDArray[np.float64] = np.log(stretches + 1.0) * self.scale + 1
        return factors.astype(np.float32)


class Attention:
    """Norm, projections, rotation, attention over the cache, output projection: (T, E) -> (T, E).

    Biases of the projections are used where the file has them. Without ``rope``, nothing is turned.
    ``scale`` multiplies the scores, by default the head's width to the power of -0.5. ``window`` is
    how many positions a token sees, 0 for all; ``sinks`` asks for a score of no value in each
    head's softmax. ``keys_as_values``: there is no ``attn_v``; what is projected to be keys is,
    before its norm and rotation, values too. ``norm_values``: head by head, without a weight.
    ``clamp`` is what queries, keys and values stay within, 0 for no bound; ``cap`` is what scores
    do, by a tanh. ``centred``: see ``RMSNorm``; ``norm``: see ``norm_before``.
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
        rope: Rope | None,
        rope_style: RopeStyle,
        qk_norm: QKNorm = "none",
        scale: float | None = None,
        window: int = 0,
        sinks: bool = False,
        keys_as_values: bool = False,
        norm_values: bool = False,
        output_gate: OutputGate = "none",
        temperature: Temperature | None = None,
        clamp: float = 0.0,
        cap: float = 0.0,
        centred: bool = False,
        norm: str = "attn_norm.weight",
    ) -> None:
        self.backend = weights.backend
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.head_dim, self.value_dim = head_dim, value_dim
        self.rope, self.rope_style, self.qk_norm = rope, rope_style, qk_norm
        self.temperature, self.clamp = temperature, clamp
        self.v_norm = UnweightedRMSNorm(self.backend, value_dim, eps) if norm_values else None
        queries, pairs = num_heads * head_dim, num_kv_heads * head_dim
        values, attended = num_kv_heads * value_dim, num_heads * value_dim
        self.norm = norm_before(weights, norm, hidden_size, eps, centred=centred)
        self.attn_v: Matrix | None = None
        self.output_gate = output_gate
        if output_gate == "joined":
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
        if output_gate in ("sigmoid", "softplus"):
            self.attn_gate = _gate(weights, hidden_size, num_heads, attended)
        self.attn_output = weights.matrix("attn_output.weight", hidden_size, attended)
        self.q_bias = weights.optional_vector("attn_q.bias", queries)
        self.k_bias = weights.optional_vector("attn_k.bias", pairs)
        self.v_bias = weights.optional_vector("attn_v.bias", values)
        self.output_bias = weights.optional_vector("attn_output.bias", hidden_size)
        self.rule = AttentionRule(
            1 / math.sqrt(head_dim) if scale is None else scale,
            window,
            weights.vector("attn_sinks.weight", num_heads) if sinks else None,
            cap=cap,
        )
        if qk_norm == "unweighted_turned":
            self.q_norm: Norm = UnweightedRMSNorm(self.backend, head_dim, eps)
            self.k_norm: Norm = self.q_norm
        elif qk_norm != "none":
            whole = qk_norm == "whole"
            self.q_norm, self.k_norm = (
                RMSNorm(weights, f"attn_{name}_norm.weight", size if whole else head_dim, eps)
                for name, size in (("q", queries), ("k", pairs))
            )

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
        if self.rope is not None:
            angles = batch.angles(self.rope)
            q = ops.rope(q, *angles, self.rope_style)
            k = ops.rope(k, *angles, self.rope_style)
        if self.qk_norm in ("head_turned", "unweighted_turned"):
            q, k = self.q_norm(q), self.k_norm(k)
        if self.temperature is not None:
            q = ops.scale_rows(q, self.temperature(batch.positions()))
        out = self.attend((q, k, v), x, batch, layer)
        return ops.linear(self._gated(out, x), self.attn_output, self.output_bias)  # (T, E)

    def attend(self, qkv: QKV, x: Array, batch: Batch, layer: int) -> Array:
        """What heads see with queries, keys and values of normed input ``x``: (T, H * Dv)."""
        return self.backend.attention(qkv, batch.kv, layer, self.rule)

    def _project(self, x: Array) -> list[Array]:
        """Queries, keys and values of normed input: (T, H * D), (T, K * D), (T, K * Dv)."""
        weights, biases = [self.attn_q, self.attn_k], [self.q_bias, self.k_bias]
        if self.attn_v is not None:
            weights, biases = [*weights, self.attn_v], [*biases, self.v_bias]
        parts = self.backend.linears(x, weights, biases)
        if self.clamp:
            parts = [self.backend.clip(part, self.clamp) for part in parts]
        return parts if self.attn_v is not None else [*parts, parts[-1]]

    def _gated(self, out: Array, x: Array) -> Array:
        """What was attended to, by the gates of normed input: (T, H * Dv)."""
        if self.output_gate == "none":
            return out
        ops = self.backend
        gates = ops.linear(x, self.attn_gate)
        if gates.shape != out.shape:  # a gate a head
            out = out.reshape(-1, self.num_heads, self.value_dim)
            gates = gates[..., None]
        if self.output_gate == "softplus":
            out = out * ops.softplus(gates)
        else:
            out = ops.sigmoid_scale(out, gates)
        return out.reshape(len(x), -1)


def _gate(weights: Weights, hidden_size: int, num_heads: int, attended: int) -> Matrix:
    name = "attn_gate.weight"
    width = weights.width(name)
    if width not in (num_heads, attended):
        raise ModelFormatError(
            f"{weights.file.path}: tensor {weights.prefix + name!r} has {width} rows, expected one "
            f"a head, {num_heads}, or one a number, {attended}"
        )
    return weights.matrix(name, width, hidden_size)
