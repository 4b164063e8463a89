"""Root-mean-square normalisation."""

from moestream.backends import Array
from moestream.layers.weights import Weights


class RMSNorm:
    """``x / rms(x) * weight`` over the last axis.

    Source: arXiv 1910.07467.
    """

    def __init__(self, weights: Weights, name: str, size: int, eps: float) -> None:
        self.backend = weights.backend
        self.weight = weights.vector(name, size)
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        """Normalise: any shape whose last axis is the weight's size."""
        return self.backend.rms_norm(x, self.weight, self.eps)
