"""MLX: the GPU of Apple Silicon; on Linux its CPU, which serves to test what is written here.

Owns what is resident, and products with it. Attention, experts and recurrent layers have files of
their own beside this one, and so has the device.

Everything is lazy but ``route``: a layer's router must reach the CPU before its experts can be
fetched, so it waits once a layer. What experts lie in is not to change while it may still be read:
``route`` sees to it that the layers before are done, and only then are slots given away.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moestream.backends.mlx_attention import MlxAttention
from moestream.backends.mlx_compressed import MlxCompressed
from moestream.backends.mlx_core import CACHE_BYTES, allocate, as_type, limit_memory, mx, options
from moestream.backends.mlx_experts import MlxRouted
from moestream.backends.mlx_recurrent import MlxRecurrent
from moestream.backends.mlx_weights import Weight, laid_out_bytes
from moestream.backends.types import Array
from moestream.gguf import Tensor
from moestream.quants import GGMLQuantizationType as Type
from moestream.quants import dequantize


class MlxBackend(MlxAttention, MlxCompressed, MlxRouted, MlxRecurrent):
    """Every operation on MLX's default device. See ``Backend`` for shapes and meaning."""

    name = "mlx"
    keeps_bits = False
    scratch_bytes = CACHE_BYTES

    def __init__(self) -> None:
        super().__init__()
        limit_memory()

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

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """``x / sqrt(mean(x^2) + eps) * weight``."""
        return self._device.fast.rms_norm(x, weight, eps)
