"""Linear attention by the gated delta rule, over a state that does not grow."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, Convolution, DeltaRule, Matrix
from moestream.layers.batch import Batch
from moestream.layers.cache import RecurrentShape, State
from moestream.layers.norm import RMSNorm, norm_before
from moestream.layers.weights import Weights

HeadOrder = Literal["blocked", "tiled"]
"""Which value heads share key head 0 of K: the first H / K, or heads 0, K, 2 K, ..."""


@dataclass(frozen=True, slots=True)
class DeltaShape:
    """Sizes of a layer: heads of ``dim`` coordinates, and the convolution's width."""

    key_heads: int
    value_heads: int
    dim: int
    conv_width: int

    @property
    def keys(self) -> int:
        """Width of all queries, and of all keys."""
        return self.key_heads * self.dim

    @property
    def values(self) -> int:
        """Width of all values."""
        return self.value_heads * self.dim

    @property
    def channels(self) -> int:
        """Width of what is convolved: queries, keys and values."""
        return 2 * self.keys + self.values

    def state(self) -> RecurrentShape:
        """The convolution's last inputs, and a matrix a value head."""
        past = (self.conv_width - 1, self.channels)
        return RecurrentShape((past, (self.value_heads, self.dim, self.dim)))


class DeltaNet:
    """Norm, projections, short convolution, delta rule, gated norm, projection: (T, E) -> (T, E).

    ``norm``: see ``norm_before``; ``gate`` is what scales the result passes through.

    Files join projections in several ways; what was joined is taken apart as it is loaded.

    Source: arXiv 2412.06464; llama.cpp, src/models/delta-net-base.cpp.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        hidden_size: int,
        shape: DeltaShape,
        order: HeadOrder,
        eps: float,
        norm: str = "attn_norm.weight",
        gate: Literal["silu", "sigmoid"] = "silu",
    ) -> None:
        self.backend = weights.backend
        self.shape, self.gate = shape, gate
        heads = shape.value_heads
        self.norm = norm_before(weights, norm, hidden_size, eps)
        self.projections = [
            *_qkv_and_gate(weights, hidden_size, shape),
            *_write_and_forget(weights, hidden_size, shape),
        ]
        kernel = weights.table("ssm_conv1d.weight", shape.channels, shape.conv_width)
        self.convolution = Convolution(kernel, silu=True)
        self.rule = DeltaRule(
            rates=weights.vector("ssm_a", heads),
            time_bias=weights.vector("ssm_dt.bias", heads),
            key_heads=_key_heads(shape, order),
            num_key_heads=shape.key_heads,
            dim=shape.dim,
            eps=eps,
        )
        self.head_norm = RMSNorm(weights, "ssm_norm.weight", shape.dim, eps)
        self.out = weights.matrix("ssm_out.weight", hidden_size, shape.values)

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """Run each sequence's rows through its recurrence."""
        ops = self.backend
        qkv, gate, write, forget = ops.linears(self.norm(x), self.projections, [None] * 4)
        found = batch.each(layer, self._recur, qkv, write, forget)  # (T, H * D)
        heads = found.reshape(-1, self.shape.value_heads, self.shape.dim)
        normed = self.head_norm(heads).reshape(-1, self.shape.values)
        if self.gate == "sigmoid":
            return ops.linear(ops.sigmoid_scale(normed, gate), self.out)
        return ops.linear(ops.glu(gate, normed, "silu"), self.out)

    def _recur(self, state: State, qkv: Array, write: Array, forget: Array) -> Array:
        past, memory = state
        qkv = self.backend.causal_conv(qkv, past, self.convolution)  # (T, C)
        return self.backend.delta_net(qkv, write, forget, memory, self.rule)


def _key_heads(shape: DeltaShape, order: HeadOrder) -> NDArray[np.int32]:
    heads = np.arange(shape.value_heads, dtype=np.int32)
    if order == "tiled":
        return heads % shape.key_heads
    return heads // (shape.value_heads // shape.key_heads)


def _qkv_and_gate(weights: Weights, hidden_size: int, shape: DeltaShape) -> list[Matrix]:
    """Queries, keys and values in one matrix, and the gate of the result."""
    if weights.has("attn_qkv.weight"):
        return [
            weights.matrix("attn_qkv.weight", shape.channels, hidden_size),
            weights.matrix("attn_gate.weight", shape.values, hidden_size),
        ]
    # Older files keep the order of training: what belongs to one key head lies together.
    shared = shape.values // shape.key_heads
    size = shape.channels + shape.values
    rows = np.arange(size).reshape(shape.key_heads, -1)
    parts = np.split(rows, np.cumsum([shape.dim, shape.dim, shared]), axis=1)
    q, k, v, gate = (part.ravel() for part in parts)
    return [
        weights.matrix_rows("ssm_in.weight", size, hidden_size, picked)
        for picked in (np.concatenate([q, k, v]), gate)
    ]


def _write_and_forget(weights: Weights, hidden_size: int, shape: DeltaShape) -> list[Matrix]:
    """The logits of how much is written, and of how much is kept: a number a value head each."""
    heads = shape.value_heads
    if weights.has("ssm_beta.weight"):
        return [
            weights.matrix(f"ssm_{name}.weight", heads, hidden_size) for name in ("beta", "alpha")
        ]
    rows = np.arange(2 * heads).reshape(shape.key_heads, 2, -1)
    return [
        weights.matrix_rows("ssm_ba.weight", 2 * heads, hidden_size, rows[:, part].ravel())
        for part in (0, 1)
    ]
