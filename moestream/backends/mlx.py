"""MLX: the GPU of Apple Silicon; on Linux its CPU, which serves to test what is written here.

Owns the arithmetic as MLX has it. Experts, attention, rotation and recurrent layers have files of
their own beside this one, and so has the device.

Everything is lazy but ``route``: a layer's router must reach the CPU before its experts can be
fetched, so it waits once a layer. What experts lie in is not to change while it may still be read:
``route`` sees to it that the layers before are done, and only then are slots given away.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends import mlx_recurrent
from moestream.backends.kv_rows import KVShapes, KVTypes
from moestream.backends.mlx_attention import Attention
from moestream.backends.mlx_core import allocate, as_type, mx, options
from moestream.backends.mlx_device import Device
from moestream.backends.mlx_experts import MlxExperts, empty_slots, glu, run_experts
from moestream.backends.mlx_kv import MlxStores
from moestream.backends.mlx_rope import Angles, turn
from moestream.backends.mlx_weights import MLXSlots, Weight, laid_out_bytes
from moestream.backends.reference import ReferenceBackend
from moestream.backends.types import (
    Activation,
    Array,
    Arrivals,
    AttentionRule,
    DeltaRule,
    ExpertTensors,
    KVPass,
    RopeStyle,
    Routing,
    StreamedExperts,
)
from moestream.gguf import Tensor
from moestream.quants import GGMLQuantizationType as Type
from moestream.quants import dequantize

_CACHE_BYTES = 64 << 20
"""Freed buffers that MLX may keep for use again: enough for a chunk's activations."""


class MlxBackend:
    """Every operation on MLX's default device. See ``Backend`` for shapes and meaning."""

    name = "mlx"
    scratch_bytes = _CACHE_BYTES

    def __init__(self) -> None:
        self._device = Device()
        self.work = self._device.work
        self._mx = self._device.ops
        self._router = ReferenceBackend()
        self._angles = Angles(self._device)
        self._attention = Attention(self._device)
        mx.set_cache_limit(_CACHE_BYTES)
        if mx.metal.is_available():
            mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))

    def resident_bytes(self, type: Type, shape: tuple[int, ...]) -> int:
        """As it is laid out, which is more than in the file."""
        return laid_out_bytes(type, shape)

    def matrix(self, tensor: Tensor) -> Weight:
        """Lay the blocks out in MLX's memory."""
        weight = replace(allocate(tensor.type, tensor.shape), scale=tensor.scale)
        weight.fill(tensor.data)
        return weight

    def head_matrices(self, tensors: list[Tensor]) -> Weight:
        """Lay them out one after the other, as one stack."""
        stack = allocate(tensors[0].type, (len(tensors), *tensors[0].shape))
        for head, tensor in enumerate(tensors):
            stack.fill(tensor.data, head)
        return stack

    def embedding(self, tensor: Tensor) -> Tensor:
        """Keep the blocks as they are in the file."""
        return tensor

    def vector(self, tensor: Tensor) -> Array:
        """Decode a small tensor."""
        return mx.array(dequantize(tensor.data, tensor.type))

    def experts(self, tensors: ExpertTensors | StreamedExperts) -> MlxExperts:
        """See ``MlxExperts.of``."""
        return MlxExperts.of(tensors)

    def expert_slots(self, tensors: ExpertTensors, num_slots: int) -> MLXSlots:
        """See ``empty_slots``."""
        return empty_slots(tensors, num_slots)

    def embed(self, table: Weight | Tensor, tokens: NDArray[np.int32]) -> Array:
        """Decode the rows asked for."""
        if isinstance(table, Tensor):
            return self._device.send(dequantize(table.data[tokens], table.type))
        ids = self._device.send(tokens)
        rows = [self._mx.take(array, ids, axis=0) for array in table.arrays]
        if table.layout.mode == "float":
            return as_type(self._mx, rows[0], mx.float32)
        return self._mx.dequantize(*rows, **options(table.layout), dtype=mx.float32)  # (T, E)

    def linear(self, x: Array, weight: Weight, bias: Array | None = None) -> Array:
        """Multiply with the codes, or in a float weight's own type."""
        if weight.layout.mode == "float":
            (floats,) = weight.arrays
            out = self._mx.matmul(as_type(self._mx, x, floats.dtype), floats.swapaxes(-1, -2))
            out = as_type(self._mx, out, mx.float32)
        else:
            out = self._mx.quantized_matmul(x, *weight.arrays, **options(weight.layout))
        if weight.scale != 1:
            out = self._mx.multiply(out, weight.scale)
        return out if bias is None else self._mx.add(out, bias)  # (T, rows)

    def linears(self, x: Array, weights: list[Weight], biases: list[Array | None]) -> list[Array]:
        """One after the other."""
        return [self.linear(x, *pair) for pair in zip(weights, biases, strict=True)]

    def heads_linear(self, x: Array, weights: Weight) -> Array:
        """One product of stacks."""
        return self.linear(x.swapaxes(0, 1), weights).swapaxes(0, 1)  # (T, H, rows)

    def copy(self, x: Array) -> Array:
        """The same values in memory of their own."""
        return mx.array(x)

    def split(self, x: Array, size: int) -> tuple[Array, Array]:
        """Views."""
        return x[..., :size], x[..., size:]

    def join(self, a: Array, b: Array) -> Array:
        """A copy."""
        return self._mx.concatenate([a, b], axis=-1)

    def stack_rows(self, parts: Sequence[Array]) -> Array:
        """A copy, unless there is one part alone."""
        return parts[0] if len(parts) == 1 else self._mx.concatenate(parts)

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """``x / sqrt(mean(x^2) + eps) * weight``."""
        return self._device.fast.rms_norm(x, weight, eps)

    def rope(
        self, x: Array, cos: NDArray[np.float32], sin: NDArray[np.float32], style: RopeStyle
    ) -> Array:
        """See ``mlx_rope``."""
        return turn(self._mx, x, self._angles.of(cos, sin), style)

    def kv_stores(self, shapes: KVShapes, kv_types: KVTypes, capacity: int) -> MlxStores:
        """A buffer a layer and sequence, float16 or float32.

        Raises:
            UnsupportedModelError: ``q8_0``, which MLX's attention does not read.
        """
        return MlxStores(shapes, kv_types, capacity)

    def kv_pass(self, parts: Sequence[tuple[Any, int, int]]) -> KVPass:
        """As they are."""
        return parts

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """Zeros."""
        return mx.zeros(shape)

    def attention(
        self,
        q: Array,
        k: Array,
        v: Array | None,
        kv_pass: KVPass,
        layer: int,
        rule: AttentionRule,
    ) -> Array:
        """See ``mlx_attention``."""
        return self._attention.run(q, (k, v), kv_pass, layer, rule)

    def causal_conv(self, x: Array, kernel: Array, past: Array, *, silu: bool = False) -> Array:
        """See ``mlx_recurrent``."""
        return mlx_recurrent.causal_conv(self._mx, x, kernel, past, silu=silu)

    def delta_net(
        self, qkv: Array, write: Array, forget: Array, state: Array, rule: DeltaRule
    ) -> Array:
        """See ``mlx_recurrent``."""
        key_heads = self._device.send(rule.key_heads)
        return mlx_recurrent.delta_net(self._mx, qkv, write, forget, state, rule, key_heads)

    def add(self, a: Array, b: Array) -> Array:
        """Element by element."""
        return self._mx.add(a, b)

    def multiply(self, a: Array, b: Array) -> Array:
        """Element by element."""
        return self._mx.multiply(a, b)

    def glu(self, gate: Array, up: Array, activation: Activation) -> Array:
        """See ``Activation``."""
        return glu(self._mx, gate, up, activation)

    def sigmoid_scale(self, x: Array, logits: Array) -> Array:
        """``x * sigmoid(logits)``."""
        return self._mx.multiply(x, self._mx.sigmoid(logits))

    def route(
        self,
        logits: Array,
        routing: Routing,
        selection_bias: NDArray[np.float32] | None = None,
        expert_scales: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.int32], Array]:
        """Wait for the logits, and choose on the CPU as the reference does: they are few."""
        found = self._device.fetch(logits)
        ids, weights = self._router.route(found, routing, selection_bias, expert_scales)
        on_device = self._device.send(weights)
        self._device.know(on_device)
        return ids, on_device

    def moe_ffn(
        self,
        x: Array,
        experts: MlxExperts,
        ids: NDArray[np.int32],
        weights: Array,
        arrivals: Arrivals | None = None,
    ) -> Array:
        """See ``mlx_experts``."""
        out = run_experts(self._device, x, experts, ids, arrivals)  # (T, k, E)
        total = self._mx.sum(self._mx.multiply(out, weights[..., None]), axis=1)
        self._device.put_off(total)
        return total  # (T, E)

    def begin(self, x: Array) -> None:
        """Hand the work to the device, and go on."""
        self._device.begin(x)

    def to_numpy(self, x: Array) -> NDArray[np.float32]:
        """Wait for the values."""
        return self._device.fetch(x)
