"""The short convolution that stands where attention would: gated before and after."""

import numpy as np

from moestream.backends import Array, Convolution
from moestream.layers.batch import Batch
from moestream.layers.cache import State
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import Weights


class ShortConvolution:
    """``out(c * conv(b * x))`` with b, c and x projected from the normed input: (T, E) -> (T, E).

    Its state is the last inputs of the convolution, (``width`` - 1, E).

    Source: LFM2, arXiv 2511.23404.
    """

    def __init__(self, weights: Weights, *, hidden_size: int, width: int, eps: float) -> None:
        self.backend = weights.backend
        self.norm = RMSNorm(weights, "attn_norm.weight", hidden_size, eps)
        name, rows = "shortconv.in_proj.weight", np.arange(3 * hidden_size)
        self.into = [
            weights.matrix_rows(name, 3 * hidden_size, hidden_size, part)
            for part in np.split(rows, 3)
        ]
        self.rule = Convolution(weights.table("shortconv.conv.weight", hidden_size, width))
        self.out = weights.matrix("shortconv.out_proj.weight", hidden_size, hidden_size)

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """Convolve each sequence's rows with what came before them."""
        ops = self.backend
        before, after, values = ops.linears(self.norm(x), self.into, [None] * 3)  # (T, E) each
        mixed = batch.each(layer, self._convolve, ops.multiply(before, values))
        return ops.linear(ops.multiply(after, mixed), self.out)

    def _convolve(self, state: State, x: Array) -> Array:
        (past,) = state
        return self.backend.causal_conv(x, past, self.rule)
