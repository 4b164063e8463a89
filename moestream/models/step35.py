"""Step 3.5.

Source: llama.cpp, src/models/step35.cpp.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moestream.layers.attention import QKNorm
from moestream.layers.ffn import Gate
from moestream.layers.rope import RopeConfig
from moestream.layers.weights import Weights
from moestream.models.keys import Keys
from moestream.models.sliding_moe import SlidingConfig, SlidingMoE


@dataclass(frozen=True, slots=True, kw_only=True)
class Step35Config(SlidingConfig):
    """Limits of inner values, layer by layer, 0 for none: of experts, and of other networks."""

    limits: tuple[float, ...]
    shared_limits: tuple[float, ...]


class Step35(SlidingMoE):
    """Heads gated one by one; layers that see everything turn half as many numbers of a head."""

    output_gate = "sigmoid"
    scale_windowed = False
    dense_without_router = True
    config: Step35Config

    @classmethod
    def read_config(cls, keys: Keys) -> Step35Config:
        """Add the limits."""
        keys.require(cls.supported)
        layers = keys.num_layers()
        limits, shared = (
            keys.per_layer_numbers(f"swiglu_clamp_{part}", layers, 0.0) for part in ("exp", "shexp")
        )
        return Step35Config.read(
            keys,
            limits=limits,
            shared_limits=shared,
            **cls.read_own(keys),
        )

    @classmethod
    def read_full_rope(cls, rope: RopeConfig) -> RopeConfig:
        """Half as many numbers."""
        return replace(rope, dimensions=rope.dimensions // 2)

    def norms(self, weights: Weights) -> QKNorm:
        """Head by head, where the file has them."""
        return "head" if weights.has("attn_q_norm.weight") else "none"

    def rope_factors(self, weights: Weights, context_length: int) -> NDArray[np.float32] | None:
        """Of the file's factors, those of the numbers that turn in layers that see everything."""
        name, pairs = "rope_freqs.weight", self.config.rope.dimensions // 2
        if not weights.has(name):
            return None
        factors = weights.optional_floats(name, weights.width(name))
        return None if factors is None else factors[:pairs]

    def gating(self, index: int) -> Gate:
        """Bounded after the gate has passed."""
        return Gate.capped(self.config.limits[index])

    def shared_gating(self, index: int) -> Gate:
        """The same, with a limit of their own."""
        return Gate.capped(self.config.shared_limits[index])

    @property
    def shared_width(self) -> int:
        """None where the file does not say."""
        return self.config.shared_intermediate_size
