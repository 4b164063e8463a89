"""NumPy float32: the executable specification of ``Backend``.

Reads any quantisation type that ``moestream.quants`` does. Weights stay quantised in the mapped
file and are dequantised as they are used: a slab of rows or one expert at a time, never the model.
Slow on purpose: every operation is the plain formula.
"""

import numpy as np
from numpy.typing import NDArray

from moestream.backends.compressed import Compressing
from moestream.backends.numpy_arrays import Floats
from moestream.backends.reference_attention import AttentionFormulas
from moestream.backends.reference_experts import ExpertFormulas
from moestream.backends.reference_recurrent import RecurrentFormulas
from moestream.backends.stream_gates import GatedStreams
from moestream.gguf import Tensor
from moestream.quants import dequantize

_SLAB_WEIGHTS = 1 << 22
"""Weights dequantised at once by ``linear``: 16 MiB of float32."""


class ReferenceBackend(
    AttentionFormulas, Compressing, ExpertFormulas, RecurrentFormulas, GatedStreams
):
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

    def add(self, a: Floats, b: Floats) -> Floats:
        """Element by element."""
        return a + b
