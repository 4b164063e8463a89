"""Exponentials, sigmoids, small products and streams by kernels: the same bits everywhere."""

from collections.abc import Callable

import numpy as np

from moestream import _native
from moestream.backends.numpy_arrays import Floats, NumpyArrays
from moestream.backends.stream_gates import StreamGates
from moestream.quants import GGMLQuantizationType

_FLOATS = int(GGMLQuantizationType.F32)


def _of_each(kernel: Callable[[Floats, Floats], None], x: Floats) -> Floats:
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    kernel(x, out)
    return out


class MathKernels(NumpyArrays):
    """Part of the native ``Backend``; see there for shapes and meaning."""

    _run: _native.Context

    def exponentials(self, x: Floats) -> Floats:
        """``e^x``."""
        return _of_each(self._run.exponentials, x)

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
        return _of_each(self._run.softplus, x)

    def soften(self, x: Floats, limit: float) -> Floats:
        """By ``(1 - e) / (1 + e)`` with ``e = exp(-2 x / limit)``, as in the kernels."""
        most, size = np.float32(40), np.float32(limit)  # tanh is one in float32 long before
        e = self.exponentials(np.clip(x / size * np.float32(-2), -most, most))
        softened = 1 - e
        softened /= np.add(e, 1, out=e)
        softened *= size
        return softened

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

    def read_streams(self, streams: Floats, by: StreamGates) -> tuple[Floats, Floats | None]:
        """All steps in one call."""
        tokens, count, size = streams.shape
        out = np.empty((tokens, size), np.float32)
        scales = np.empty((tokens if by.inject is not None else 0, count), np.float32)
        self._run.read_streams(streams, by.norm, by.eps, by.down, by.up, by.inject, out, scales)
        return out, None if by.inject is None else scales

    def write_streams(self, streams: Floats, added: Floats, scales: Floats) -> Floats:
        """Row by row."""
        out = np.empty_like(streams)
        self._run.write_streams(streams, added, scales, out)
        return out
