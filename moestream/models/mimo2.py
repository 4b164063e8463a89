"""Xiaomi's MiMo-V2.

Source: llama.cpp, src/models/mimo2.cpp.
"""

from dataclasses import dataclass

from moestream.backends import Array
from moestream.layers.batch import Batch
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.keys import Keys
from moestream.models.sliding_moe import SlidingConfig, SlidingMoE


@dataclass(frozen=True, slots=True, kw_only=True)
class MiMo2Config(SlidingConfig):
    """``value_scale`` multiplies what attention adds."""

    value_scale: float


class ScaledMixer:
    """Attention, then a factor."""

    def __init__(self, attention: Mixer, scale: float) -> None:
        self.attention, self.scale, self.norm = attention, scale, attention.norm

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """(T, E) -> (T, E)."""
        return self.attention(x, batch, layer) * self.scale


class MiMo2(SlidingMoE):
    """Sinks where the file has them, heads turned in part, values shorter than keys."""

    qk_norm = "none"
    normalise = True
    scale_windowed = False
    dense_without_router = True
    config_type = MiMo2Config
    config: MiMo2Config

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the factor; missing or 0, it is none."""
        scale = keys.number("attention.value_scale", 0.0) or 1.0
        return super().read_own(keys) | {"value_scale": scale}

    def sinks(self, weights: Weights) -> bool:
        """Where the file has them."""
        return weights.has("attn_sinks.weight")

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention, scaled."""
        attention = super().mixer(weights, index)
        scale = self.config.value_scale
        return attention if scale == 1 else ScaledMixer(attention, scale)
