"""Normalisation: by the root mean square, or by mean and deviation."""

from collections.abc import Callable

from moestream.backends import Array, Backend
from moestream.layers.weights import Weights


class RMSNorm:
    """``x / rms(x) * weight`` over the last axis, plus a bias where the file has one.

    ``factor`` multiplies the weight. ``centred`` takes the mean from x first (LayerNorm).

    Source: arXiv 1910.07467, 1607.06450.
    """

    def __init__(
        self,
        weights: Weights,
        name: str,
        size: int,
        eps: float,
        *,
        factor: float = 1.0,
        centred: bool = False,
    ) -> None:
        self.backend = weights.backend
        self.weight = weights.vector(name, size)
        if factor != 1.0:
            self.weight = self.weight * factor
        self.bias = weights.optional_vector(name.removesuffix(".weight") + ".bias", size)
        self.eps, self.centred = eps, centred

    def __call__(self, x: Array) -> Array:
        """Normalise: any shape whose last axis is the weight's size."""
        if self.centred:
            x = x - x.mean(axis=-1, keepdims=True)
        normed = self.backend.rms_norm(x, self.weight, self.eps)
        return normed if self.bias is None else normed + self.bias


class UnweightedRMSNorm:
    """``x / rms(x)`` over the last axis."""

    def __init__(self, backend: Backend, size: int, eps: float) -> None:
        self.backend = backend
        self.ones = backend.zeros((size,)) + 1
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        """Normalise: any shape whose last axis is of ``size``."""
        return self.backend.rms_norm(x, self.ones, self.eps)


def norm_before(
    weights: Weights, name: str, size: int, eps: float, *, centred: bool = False
) -> Callable[[Array], Array]:
    """What a block's input passes through first: a norm, or where it has no name, nothing."""
    return RMSNorm(weights, name, size, eps, centred=centred) if name else _as_it_is


def _as_it_is(x: Array) -> Array:
    return x
