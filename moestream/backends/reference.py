"""NumPy float32: the executable specification of ``Backend``.

Reads any quantisation type that ``moestream.quants`` does. Weights stay quantised in the mapped
file and are dequantised as they are used: a slab of rows or one expert at a time, never the model.
Slow on purpose: every operation is the plain formula.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends.kv_blocks import append_rows
from moestream.backends.numpy_arrays import Floats, sigmoid
from moestream.backends.reference_recurrent import RecurrentFormulas
from moestream.backends.sparse import choose_in_blocks
from moestream.backends.types import (
    Activation,
    Arrivals,
    AttentionRule,
    ExpertTensors,
    IndexQueries,
    KVPass,
    RopeStyle,
    Routing,
    StreamedExperts,
)
from moestream.gguf import Tensor
from moestream.quants import dequantize

_SLAB_WEIGHTS = 1 << 22
"""Weights dequantised at once by ``linear``: 16 MiB of float32."""

_MIN_WEIGHT_SUM = 6.103515625e-5
"""Smallest normal float16: keeps the normalisation of router weights from dividing by zero."""


class ReferenceBackend(RecurrentFormulas):
    """Every operation as its formula, in float32. See ``Backend`` for shapes and meaning."""

    name = "reference"
    keeps_bits = False
    scratch_bytes = 0

    def matrix(self, tensor: Tensor) -> Tensor:
        """Keep the mapped tensor; its rows are dequantised when they are used."""
        return tensor

    def head_matrices(self, tensors: list[Tensor]) -> list[Tensor]:
        """Keep the mapped tensors."""
        return tensors

    def embedding(self, tensor: Tensor) -> Tensor:
        """Keep the blocks as they are."""
        return tensor

    def vector(self, tensor: Tensor) -> Floats:
        """Dequantise a small tensor."""
        return dequantize(tensor.data, tensor.type)

    def experts(self, tensors: ExpertTensors | StreamedExperts) -> ExpertTensors | StreamedExperts:
        """Keep the tensors as they are."""
        return tensors

    def embed(self, table: Tensor, tokens: NDArray[np.int32]) -> Floats:
        """Dequantise only the rows asked for."""
        return dequantize(table.data[tokens], table.type)  # (T, E)

    def linear(self, x: Floats, weight: Tensor, bias: Floats | None = None) -> Floats:
        """Multiply slab by slab of the weight's rows."""
        rows, columns = weight.shape
        out = np.empty((len(x), rows), np.float32)
        step = max(1, _SLAB_WEIGHTS // columns)
        for start in range(0, rows, step):
            slab = dequantize(weight.data[start : start + step], weight.type)
            np.matmul(x, slab.T, out=out[:, start : start + step])
        out *= np.float32(weight.scale)
        return out if bias is None else out + bias  # (T, rows)

    def linears(
        self, x: Floats, weights: list[Tensor], biases: list[Floats | None]
    ) -> list[Floats]:
        """One after the other."""
        return [self.linear(x, *pair) for pair in zip(weights, biases, strict=True)]

    def heads_linear(self, x: Floats, weights: list[Tensor]) -> Floats:
        """One head after the other."""
        return np.stack([self.linear(x[:, i], weight) for i, weight in enumerate(weights)], axis=1)

    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        """``x / sqrt(mean(x^2) + eps) * weight``."""
        mean_square = np.mean(np.square(x), axis=-1, keepdims=True, dtype=np.float32)
        scale: Floats = np.sqrt(mean_square + np.float32(eps))
        return x / scale * weight

    def rope(self, x: Floats, cos: Floats, sin: Floats, style: RopeStyle) -> Floats:
        """Turn pairs of coordinates; what lies beyond the rotary dimensions passes through."""
        half = cos.shape[1]
        cos, sin = cos[:, None], sin[:, None]  # (T, 1, D/2)
        first, second = _rope_pairs(style, half)
        a, b = x[..., first], x[..., second]
        out = x.copy()
        out[..., first] = a * cos - b * sin
        out[..., second] = a * sin + b * cos
        return out  # (T, H, D)

    def kv_pass(self, parts: Sequence[tuple[Any, int, int]]) -> KVPass:
        """As they are."""
        return parts

    def attention(
        self,
        q: Floats,
        k: Floats,
        v: Floats | None,
        kv_pass: KVPass,
        layer: int,
        rule: AttentionRule,
        seen: NDArray[np.uint8] | None = None,
    ) -> Floats:
        """One sequence after the other."""
        outs, row = [], 0
        for store, start, tokens in kv_pass:
            rows = slice(row, row + tokens)
            keys, values = store.stores.layers[layer]
            past_keys = append_rows(store, keys, k[rows], start)
            past_values = past_keys[..., : rule.value_dim]
            if v is not None:
                past_values = append_rows(store, values, v[rows], start)
            chosen = None if seen is None else seen[rows, : start + tokens]
            outs.append(_attend(q[rows], past_keys, past_values, start, rule, chosen))
            row += tokens
        return np.concatenate(outs)  # (T, H * D)

    def choose(
        self, index: IndexQueries, k: Floats, kv_pass: KVPass, layer: int
    ) -> NDArray[np.uint8] | None:
        """See ``sparse``."""
        return choose_in_blocks(index, k, kv_pass, layer)

    def add(self, a: Floats, b: Floats) -> Floats:
        """Element by element."""
        return a + b

    def glu(self, gate: Floats, up: Floats, activation: Activation, limit: float = 0.0) -> Floats:
        """See ``Activation``."""
        if activation == "relu":
            rectified: Floats = np.maximum(gate, np.float32(0)) * up
            return rectified
        if activation == "silu_clamped":
            gate, up = np.minimum(gate, np.float32(limit)), self.clip(up, limit)
            return gate * sigmoid(gate) * up
        if activation == "silu_capped":
            capped: Floats = np.minimum(gate * sigmoid(gate), np.float32(limit))
            return capped * self.clip(up, limit)
        if activation == "silu":
            return gate * sigmoid(gate) * up
        if activation == "gelu":
            inner = np.float32((2 / np.pi) ** 0.5) * gate * (1 + np.float32(0.044715) * gate * gate)
            gelu: Floats = np.float32(0.5) * gate * (1 + np.tanh(inner))
            return gelu * up
        gate, up = np.minimum(gate, np.float32(7)), np.clip(up, np.float32(-7), np.float32(7))
        return gate * sigmoid(np.float32(1.702) * gate) * (up + 1)

    def route(
        self,
        logits: Floats,
        routing: Routing,
        selection_bias: Floats | None = None,
        expert_scales: Floats | None = None,
    ) -> tuple[NDArray[np.int32], Floats]:
        """Gate, then the k largest by a stable sort."""
        gated = _GATES.get(routing.gating, np.copy)(logits)  # (T, N)
        scores = gated if selection_bias is None else gated + selection_bias
        if routing.groups > 1:
            scores = _mask_groups(scores, routing)
        ids = np.argsort(-scores, axis=-1, kind="stable")[:, : routing.k]
        weights = np.take_along_axis(gated, ids, axis=-1)  # (T, k)
        if routing.gating == "softmax_of_chosen":
            weights = _softmax(weights)
        if routing.normalise:
            total = np.sum(weights, axis=-1, keepdims=True)
            weights = weights / np.maximum(total, np.float32(_MIN_WEIGHT_SUM))
        weights = weights * np.float32(routing.scale)
        if expert_scales is not None:
            weights = weights * expert_scales[ids]
        return ids.astype(np.int32), weights

    def moe_ffn(
        self,
        x: Floats,
        experts: ExpertTensors | StreamedExperts,
        ids: NDArray[np.int32],
        weights: Floats,
        arrivals: Arrivals | None = None,
    ) -> Floats:
        """Expert by expert: dequantise it, run all tokens routed to it, forget it."""
        out = np.empty((*ids.shape, x.shape[1]), np.float32)  # (T, k, E)
        for batch in [np.unique(ids).tolist()] if arrivals is None else arrivals:
            for expert in batch:
                tokens, slots = np.nonzero(ids == expert)
                out[tokens, slots] = self._run_expert(x[tokens], experts, expert)
        total = out[:, 0] * weights[:, :1]
        for slot in range(1, ids.shape[1]):
            total += out[:, slot] * weights[:, slot : slot + 1]
        return total  # (T, E)

    def _run_expert(
        self, x: Floats, experts: ExpertTensors | StreamedExperts, expert: int
    ) -> Floats:
        parts = zip(experts.matrices(expert), (experts.gate, experts.up, experts.down), strict=True)
        gate, up, down = (dequantize(data, tensor.type) for data, tensor in parts)
        gated, raised = x @ gate.T, x @ up.T
        if experts.scales is not None:
            gated, raised = gated * experts.scales[0][expert], raised * experts.scales[1][expert]
        if experts.biases is None:
            inner = self.glu(gated, raised, experts.activation, experts.limit)
            return inner @ down.T  # (tokens, E)
        gate_bias, up_bias, down_bias = (bias[expert] for bias in experts.biases)
        inner = self.glu(gated + gate_bias, raised + up_bias, experts.activation, experts.limit)
        out: Floats = inner @ down.T + down_bias
        return out


def _attend(
    q: Floats,
    keys: Floats,
    values: Floats,
    start: int,
    rule: AttentionRule,
    seen: NDArray[np.uint8] | None,
) -> Floats:
    """Softmax of the scaled scores over the visible positions, one head at a time."""
    tokens, heads, _ = q.shape
    stop, group = start + tokens, heads // len(keys)
    ages = np.arange(start, stop)[:, None] - np.arange(stop)  # (T, S)
    hidden = (ages < 0) | (ages >= (rule.window or stop))
    if seen is not None:
        hidden |= seen == 0
    out = np.empty((tokens, heads, values.shape[2]), np.float32)
    for head in range(heads):
        scores = q[:, head] @ keys[head // group].T * np.float32(rule.scale)  # (T, S)
        if rule.cap:
            scores = np.tanh(scores / np.float32(rule.cap)) * np.float32(rule.cap)
        scores[hidden] = -np.inf
        if rule.sinks is not None:
            scores = np.column_stack([scores, np.full(tokens, rule.sinks[head])])
        out[:, head] = _softmax(scores)[:, :stop] @ values[head // group]
    return out.reshape(tokens, -1)  # (T, H * D)


def _rope_pairs(style: RopeStyle, half: int) -> tuple[slice, slice]:
    if style == "interleaved":
        return slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    return slice(0, half), slice(half, 2 * half)


def _mask_groups(scores: Floats, routing: Routing) -> Floats:
    """Scores of the best groups' experts; minus infinity for the others."""
    grouped = scores.reshape(len(scores), routing.groups, -1)  # (T, groups, N / groups)
    totals = np.sort(grouped, axis=-1)[..., -2:].sum(axis=-1)
    best = np.argsort(-totals, axis=-1, kind="stable")[:, : routing.groups_used]
    kept = np.full_like(grouped, -np.inf)
    rows = np.arange(len(scores))[:, None]
    kept[rows, best] = grouped[rows, best]
    return kept.reshape(scores.shape)


def _softmax(scores: Floats) -> Floats:
    exponentials: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
    total: Floats = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / total


_GATES = {"softmax": _softmax, "sigmoid": sigmoid}
