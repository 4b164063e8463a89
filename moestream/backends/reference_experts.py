"""NumPy float32: the executable specification of routing, experts and what gates scale."""

import numpy as np
from numpy.typing import NDArray

from moestream.backends.expert_tensors import Arrivals, ExpertTensors, StreamedExperts
from moestream.backends.maths import NUMPY, Maths
from moestream.backends.numpy_arrays import Floats, NumpyArrays
from moestream.backends.types import Activation, Routed, Routing
from moestream.quants import dequantize

_MIN_WEIGHT_SUM = 6.103515625e-5
"""Smallest normal float16: keeps the normalisation of router weights from dividing by zero."""


class ExpertFormulas(NumpyArrays):
    """Part of the reference ``Backend``; see there for shapes and meaning."""

    def experts(self, tensors: ExpertTensors | StreamedExperts) -> ExpertTensors | StreamedExperts:
        """Keep the tensors as they are."""
        return tensors

    def glu(
        self,
        gate: Floats,
        up: Floats,
        activation: Activation,
        limit: float = 0.0,
        up_limit: float = 0.0,
    ) -> Floats:
        """See ``Activation``."""
        if activation == "relu":
            rectified: Floats = np.maximum(gate, np.float32(0)) * up
            return rectified
        if activation == "silu_clamped":
            gate, up = np.minimum(gate, np.float32(limit)), self.clip(up, limit)
            return gate * self.sigmoid(gate) * up
        if activation == "silu_capped":
            capped: Floats = np.minimum(gate * self.sigmoid(gate), np.float32(limit))
            return capped * self.clip(up, limit)
        if activation == "silu":
            return gate * self.sigmoid(gate) * up
        if activation == "situ":
            return _softened(gate, limit) * self.sigmoid(gate) * _softened(up, up_limit)
        if activation == "gelu":
            inner = np.float32((2 / np.pi) ** 0.5) * gate * (1 + np.float32(0.044715) * gate * gate)
            gelu: Floats = np.float32(0.5) * gate * (1 + np.tanh(inner))
            return gelu * up
        gate, up = np.minimum(gate, np.float32(7)), np.clip(up, np.float32(-7), np.float32(7))
        return gate * self.sigmoid(np.float32(1.702) * gate) * (up + 1)

    def route(self, logits: Floats, routing: Routing) -> Routed:
        """Gate, then the k largest by a stable sort."""
        return route(logits, routing)

    def weigh(self, logits: Floats, ids: NDArray[np.int32], routing: Routing) -> Routed:
        """See the function."""
        return weigh(logits, ids, routing)

    def moe_ffn(
        self,
        x: Floats,
        experts: ExpertTensors | StreamedExperts,
        routed: Routed,
        arrivals: Arrivals | None = None,
    ) -> Floats:
        """Expert by expert: dequantise it, run all tokens routed to it, forget it."""
        ids, weights = routed
        out = np.empty((*ids.shape, x.shape[1]), np.float32)  # (T, k, E)
        for batch in [np.unique(ids).tolist()] if arrivals is None else arrivals:
            for expert in batch:
                tokens, slots = np.nonzero(ids == expert)
                out[tokens, slots] = self._run_expert(x[tokens], experts, expert)
        total: Floats = out[:, 0] * weights[:, :1]
        for slot in range(1, ids.shape[1]):
            total += out[:, slot] * weights[:, slot : slot + 1]
        return total  # (T, E)

    def _run_expert(
        self, x: Floats, experts: ExpertTensors | StreamedExperts, expert: int
    ) -> Floats:
        told = experts.mapped
        parts = zip(experts.matrices(expert), (told.gate, told.up, told.down), strict=True)
        gate, up, down = (dequantize(data, tensor.type) for data, tensor in parts)
        gated, raised = x @ gate.T, x @ up.T
        if told.scales is not None:
            gated, raised = gated * told.scales[0][expert], raised * told.scales[1][expert]
        limits = told.limit, told.up_limit
        if told.biases is None:
            inner = self.glu(gated, raised, told.activation, *limits)
            return inner @ down.T  # (tokens, E)
        gate_bias, up_bias, down_bias = (bias[expert] for bias in told.biases)
        inner = self.glu(gated + gate_bias, raised + up_bias, told.activation, *limits)
        out: Floats = inner @ down.T + down_bias
        return out


def route(logits: Floats, routing: Routing) -> tuple[NDArray[np.int32], Floats]:
    """See ``Backend.route``."""
    gated = _gated(logits, routing, NUMPY)  # (T, N)
    scores = gated if routing.selection_bias is None else gated + routing.selection_bias
    if routing.groups > 1:
        scores = _mask_groups(scores, routing)
    ids = np.argsort(-scores, axis=-1, kind="stable")[:, : routing.k].astype(np.int32)
    return ids, _weights(gated, ids, routing, NUMPY)


def weigh(
    logits: Floats, ids: NDArray[np.int32], routing: Routing, maths: Maths = NUMPY
) -> tuple[NDArray[np.int32], Floats]:
    """See ``Backend.weigh``."""
    return ids, _weights(_gated(logits, routing, maths), ids, routing, maths)


def _gated(logits: Floats, routing: Routing, maths: Maths) -> Floats:
    if routing.gating == "softmax":
        return maths.softmax(logits)
    if routing.gating == "sigmoid":
        return maths.sigmoid(logits)
    if routing.gating == "sqrt_softplus":
        return np.sqrt(maths.softplus(logits))
    return logits.copy()


def _weights(gated: Floats, ids: NDArray[np.int32], routing: Routing, maths: Maths) -> Floats:
    weights = np.take_along_axis(gated, ids, axis=-1)  # (T, k)
    if routing.gating == "softmax_of_chosen":
        weights = maths.softmax(weights)
    if routing.normalise:
        total = np.sum(weights, axis=-1, keepdims=True)
        weights = weights / np.maximum(total, np.float32(_MIN_WEIGHT_SUM))
    weights = weights * np.float32(routing.scale)
    if routing.expert_scales is not None:
        weights = weights * routing.expert_scales[ids]
    return weights


def _mask_groups(scores: Floats, routing: Routing) -> Floats:
    """Scores of the best groups' experts; minus infinity for the others."""
    grouped = scores.reshape(len(scores), routing.groups, -1)  # (T, groups, N / groups)
    totals = np.sort(grouped, axis=-1)[..., -2:].sum(axis=-1)
    best = np.argsort(-totals, axis=-1, kind="stable")[:, : routing.groups_used]
    kept = np.full_like(grouped, -np.inf)
    rows = np.arange(len(scores))[:, None]
    kept[rows, best] = grouped[rows, best]
    return kept.reshape(scores.shape)


def _softened(x: Floats, limit: float) -> Floats:
    """What comes near to a limit and its negative, and never reaches them; 0 for none."""
    return np.tanh(x / np.float32(limit)) * np.float32(limit) if limit else x
