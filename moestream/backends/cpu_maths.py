"""Exponentials, sigmoids and small products by the native kernels: the same bits everywhere."""

import numpy as np

from moestream import _native
from moestream.backends.numpy_arrays import Floats, NumpyArrays
from moestream.quants import GGMLQuantizationType

_FLOATS = int(GGMLQuantizationType.F32)


class MathKernels(NumpyArrays):
    """Part of the native ``Backend``; see there for shapes and meaning."""

    _run: _native.Context

    def exponentials(self, x: Floats) -> Floats:
        """``e^x``."""
        x = np.ascontiguousarray(x)
        out = np.empty_like(x)
        self._run.exponentials(x, out)
        return out

    def products(self, a: Floats, b: Floats) -> Floats:
        """As of weights that lie where they are."""
        rows = np.ascontiguousarray(b)
        out = np.empty((len(a), len(b)), np.float32)
        if out.size:
            matrix = self._run.mapped_matrix(rows.view(np.uint8), _FLOATS)
            self._run.linear(np.ascontiguousarray(a), [matrix], [out], [None])
        return out

    def softplus(self, x: Floats) -> Floats:
        """``log(1 + e^x)``."""
        x = np.ascontiguousarray(x)
        out = np.empty_like(x)
        self._run.softplus(x, out)
        return out

    def sigmoid(self, x: Floats) -> Floats:
        """Of one, scaled."""
        return self.sigmoid_scale(np.ones_like(x), x)

    def sigmoid_scale(self, x: Floats, logits: Floats) -> Floats:
        """``x * sigmoid(logits)``; a logit may be that of a whole row."""
        x = np.asarray(x, np.float32)
        if x.shape != logits.shape and (x.shape[:-1], 1) != (logits.shape[:-1], logits.shape[-1]):
            x, logits = np.broadcast_arrays(x, logits)
        x, logits = np.ascontiguousarray(x), np.ascontiguousarray(logits)
        out = np.empty_like(x)
        self._run.sigmoid_scale(x, logits, out)
        return out
