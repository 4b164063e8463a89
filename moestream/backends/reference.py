"""NumPy float32: the executable specification of ``Backend``.

Reads any quantisation type that ``moestream.quants`` does. Weights stay quantised in the mapped
file and are dequantised as they are used: a slab of rows or one expert at a time, never the model.
Slow on purpose: every operation is the plain formula.
"""

import numpy as np
from numpy.typing import NDArray

from moestream.backends.base import Arrivals, ExpertTensors, RopeStyle, StreamedExperts
from moestream.backends.kv_rows import KVType, kv_zeros, read_rows, write_rows
from moestream.gguf import Tensor
from moestream.quants import GGMLQuantizationType, dequantize, tensor_bytes

Floats = NDArray[np.float32]

_SLAB_WEIGHTS = 1 << 22
"""Weights dequantised at once by ``linear``: 16 MiB of float32."""

_MIN_WEIGHT_SUM = 6.103515625e-5
"""Smallest normal float16: keeps the normalisation of router weights from dividing by zero."""


class ReferenceBackend:
    """Every operation as its formula, in float32. See ``Backend`` for shapes and meaning."""

    name = "reference"
    work = None
    expert_slots = None

    def resident_bytes(self, type: GGMLQuantizationType, shape: tuple[int, ...]) -> int:
        """As in the file."""
        return tensor_bytes(type, shape)

    def matrix(self, tensor: Tensor) -> Tensor:
        """Keep the mapped tensor; its rows are dequantised when they are used."""
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
        return out if bias is None else out + bias  # (T, rows)

    def linears(
        self, x: Floats, weights: list[Tensor], biases: list[Floats | None]
    ) -> list[Floats]:
        """One after the other."""
        return [self.linear(x, *pair) for pair in zip(weights, biases, strict=True)]

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

    def kv_buffer(
        self, heads: int, positions: int, dim: int, kv_type: KVType
    ) -> NDArray[np.generic]:
        """Zeros, which the system hands out page by page as they are written."""
        return kv_zeros(heads, positions, dim, kv_type)

    def attention(
        self,
        q: Floats,
        k: Floats,
        v: Floats,
        keys: NDArray[np.generic],
        values: NDArray[np.generic],
        start: int,
        scale: float,
    ) -> Floats:
        """Softmax of the scaled scores over the visible positions, one KV head at a time."""
        tokens, heads, _ = q.shape
        kv_heads = k.shape[1]
        stop = start + tokens
        write_rows(keys[:, start:stop], k.swapaxes(0, 1))
        write_rows(values[:, start:stop], v.swapaxes(0, 1))
        hidden = np.arange(stop) > np.arange(start, stop)[:, None]  # (T, S)
        out = np.empty((heads, tokens, v.shape[2]), np.float32)
        group = heads // kv_heads
        for head in range(heads):
            past_keys = read_rows(keys[head // group, :stop])  # (S, D)
            scores = q[:, head] @ past_keys.T * np.float32(scale)  # (T, S)
            scores[hidden] = -np.inf
            out[head] = _softmax(scores) @ read_rows(values[head // group, :stop])
        return out.swapaxes(0, 1).reshape(tokens, -1)  # (T, H * D)

    def add(self, a: Floats, b: Floats) -> Floats:
        """Element by element."""
        return a + b

    def swiglu(self, gate: Floats, up: Floats) -> Floats:
        """``gate * sigmoid(gate) * up``."""
        return gate * _sigmoid(gate) * up

    def sigmoid_scale(self, x: Floats, logits: Floats) -> Floats:
        """``x * sigmoid(logits)``."""
        return x * _sigmoid(logits)

    def route(self, logits: Floats, k: int, *, normalise: bool) -> tuple[NDArray[np.int32], Floats]:
        """Softmax over all, then the k largest by a stable sort."""
        probabilities = _softmax(logits)  # (T, N)
        ids = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
        weights = np.take_along_axis(probabilities, ids, axis=-1)  # (T, k)
        if normalise:
            total = np.sum(weights, axis=-1, keepdims=True)
            weights = weights / np.maximum(total, np.float32(_MIN_WEIGHT_SUM))
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
                gates, ups, downs = experts.matrices(expert)
                tokens, slots = np.nonzero(ids == expert)
                gate = dequantize(gates, experts.gate.type)
                up = dequantize(ups, experts.up.type)
                inner = self.swiglu(x[tokens] @ gate.T, x[tokens] @ up.T)  # (tokens, F)
                out[tokens, slots] = inner @ dequantize(downs, experts.down.type).T
        total = out[:, 0] * weights[:, :1]
        for slot in range(1, ids.shape[1]):
            total += out[:, slot] * weights[:, slot : slot + 1]
        return total  # (T, E)

    def begin(self, x: Floats) -> None:
        """Nothing is lazy here."""

    def to_numpy(self, x: Floats) -> Floats:
        """Nothing is lazy here."""
        return x


def _rope_pairs(style: RopeStyle, half: int) -> tuple[slice, slice]:
    if style == "interleaved":
        return slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    return slice(0, half), slice(half, 2 * half)


def _softmax(scores: Floats) -> Floats:
    exponentials: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
    total: Floats = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / total


def _sigmoid(x: Floats) -> Floats:
    # exp(-|x|) cannot overflow; each half of the formula is exact in its own sign.
    decay: Floats = np.exp(-np.abs(x))
    upper: Floats = np.reciprocal(np.float32(1) + decay)
    return np.where(x >= 0, upper, decay * upper)
