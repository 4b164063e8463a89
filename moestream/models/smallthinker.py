"""SmallThinker.

Source: arXiv 2507.20984; llama.cpp, src/models/smallthinker.cpp.
"""

from typing import Any

from moestream.backends import Array
from moestream.layers.batch import Batch
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.blocks import Halves, Layer
from moestream.models.keys import Keys
from moestream.models.sliding_moe import SlidingMoE

_WINDOW = 4096
"""Whatever length a file gives its window: llama.cpp takes this one."""


class EarlyMoE(MoE):
    """The router sees the stream as it enters the layer, without a norm."""

    def __init__(self, weights: Weights, **sizes: Any) -> None:
        super().__init__(weights, **sizes)
        self.router_norm = _as_it_is


class EarlyRoutedLayer(Layer):
    """Experts are chosen before attention."""

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``: all of it is the second, so that no row waits as two."""
        yield
        ops = self.ffn.backend
        mixed = ops.add(x, self.mixer(x, batch, index))
        return ops.add(mixed, self.run_ffn(mixed, batch, index, routed_by=x))


class SmallThinker(SlidingMoE):
    """ReLU experts; one layer of four sees everything, and is not turned."""

    qk_norm = "none"
    normalise = True
    first_full = True
    activation = "relu"
    mixture = EarlyMoE

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """The window is of one length."""
        own = super().read_own(keys)
        return own | {"window": _WINDOW if own["window"] else 0, "leading_dense_layers": 0}

    def turns(self, index: int) -> bool:
        """Where there are no windows, all layers."""
        return not self.config.window or index % self.every != 0

    def layer(self, weights: Weights, index: int) -> EarlyRoutedLayer:
        """One layer, routed early."""
        return EarlyRoutedLayer(self.mixer(weights, index), self.ffn(weights, index))


def _as_it_is(x: Array) -> Array:
    return x
