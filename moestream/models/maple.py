"""Maple.

Source: llama.cpp, src/models/maple.cpp.
"""

from dataclasses import dataclass

from moestream.layers.ffn import Gate
from moestream.models.keys import Keys
from moestream.models.sliding_moe import SlidingConfig, SlidingMoE


@dataclass(frozen=True, slots=True, kw_only=True)
class MapleConfig(SlidingConfig):
    """``limits`` are of what experts' inner values are made of, layer by layer; 0 for none."""

    limits: tuple[float, ...]


class Maple(SlidingMoE):
    """Windowed layers turn, those that see everything do not; experts of bounded inner values."""

    supported = SlidingMoE.supported | {"expert_gating_func": ((0, 1), "0 or 1: softmax")}
    default_gating = "softmax"
    normalise = True
    config: MapleConfig

    @classmethod
    def read_config(cls, keys: Keys) -> MapleConfig:
        """Add the limits."""
        keys.require(cls.supported)
        limits = keys.per_layer_numbers("swiglu_clamp_exp", keys.num_layers())
        return MapleConfig.read(keys, limits=limits, **cls.read_own(keys))

    def turns(self, index: int) -> bool:
        """Windowed layers alone."""
        return self.config.windowed[index]

    def gating(self, index: int) -> Gate:
        """Gate and what it scales are bounded before the one passes."""
        limit = self.config.limits[index]
        return Gate("silu_clamped", limit) if limit else Gate()
