"""What is done number by number on MLX, and how its arrays are put together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends.mlx_core import mx
from moestream.backends.mlx_device import Device
from moestream.backends.types import Activation, Array


class MlxArrays:
    """Part of the MLX ``Backend``; see there for shapes and meaning."""

    def __init__(self) -> None:
        self._device = Device()
        self._mx: Any = self._device.ops
        self.work = self._device.work

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """Zeros."""
        return mx.zeros(shape)

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

    def add(self, a: Array, b: Array) -> Array:
        """Element by element."""
        return self._mx.add(a, b)

    def multiply(self, a: Array, b: Array) -> Array:
        """Element by element."""
        return self._mx.multiply(a, b)

    def scale_rows(self, x: Array, factors: NDArray[np.float32]) -> Array:
        """Broadcast."""
        shape = (-1, *[1] * (x.ndim - 1))
        return self._mx.multiply(x, self._device.send(factors).reshape(shape))

    def clip(self, x: Array, limit: float) -> Array:
        """Element by element."""
        return self._mx.clip(x, -limit, limit)

    def signed_root(self, x: Array, least: float) -> Array:
        """Element by element."""
        root = self._mx.sqrt(self._mx.maximum(self._mx.abs(x), least))
        return self._mx.multiply(self._mx.sign(x), root)

    def sinkhorn(self, logits: Array, iterations: int, eps: float) -> Array:
        """See ``Elementwise.sinkhorn``."""
        ops = self._mx
        shares = ops.add(ops.softmax(logits, axis=-1), eps)
        for axis in (-2, *(-1, -2) * (iterations - 1)):
            total = ops.add(ops.sum(shares, axis=axis, keepdims=True), eps)
            shares = ops.divide(shares, total)
        return shares

    def softmax(self, x: Array) -> Array:
        """Over the last axis."""
        return self._mx.softmax(x, axis=-1)

    def softplus(self, x: Array) -> Array:
        """Element by element."""
        return self._mx.logaddexp(x, 0.0)

    def glu(
        self,
        gate: Array,
        up: Array,
        activation: Activation,
        limit: float = 0.0,
        up_limit: float = 0.0,
    ) -> Array:
        """See ``Activation``."""
        ops = self._mx
        if activation == "relu":
            return ops.multiply(ops.maximum(gate, 0.0), up)
        if activation == "silu_clamped":
            gate = ops.minimum(gate, limit)
        if activation == "situ":
            soft = self.soften(gate, limit) if limit else gate
            gate = ops.multiply(soft, ops.sigmoid(gate))
            return ops.multiply(gate, self.soften(up, up_limit) if up_limit else up)
        if activation in ("silu_clamped", "silu_capped"):
            up = self.clip(up, limit)
        if activation in ("silu", "silu_clamped"):
            return ops.multiply(ops.multiply(gate, ops.sigmoid(gate)), up)
        if activation == "silu_capped":
            passed = ops.minimum(ops.multiply(gate, ops.sigmoid(gate)), limit)
            return ops.multiply(passed, up)
        if activation == "gelu":
            bent = ops.add(ops.multiply(ops.multiply(gate, gate), 0.044715), 1)
            inner = ops.multiply(ops.multiply(gate, bent), (2 / np.pi) ** 0.5)
            half = ops.multiply(ops.multiply(gate, 0.5), ops.add(ops.tanh(inner), 1))
            return ops.multiply(half, up)
        gate, up = ops.minimum(gate, 7.0), ops.clip(up, -7.0, 7.0)
        gate = ops.multiply(gate, ops.sigmoid(ops.multiply(gate, 1.702)))
        return ops.multiply(gate, ops.add(up, 1))

    def soften(self, x: Array, limit: float) -> Array:
        """Element by element."""
        ops = self._mx
        return ops.multiply(ops.tanh(ops.multiply(x, 1 / limit)), limit)

    def sigmoid_scale(self, x: Array, logits: Array) -> Array:
        """``x * sigmoid(logits)``."""
        return self._mx.multiply(x, self._mx.sigmoid(logits))

    def begin(self, x: Array) -> None:
        """Hand the work to the device, and go on."""
        self._device.begin(x)

    def to_numpy(self, x: Array) -> NDArray[np.float32]:
        """Wait for the values."""
        return self._device.fetch(x)
