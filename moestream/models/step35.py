"""Step 3.5.

Source: llama.cpp, src/models/step35.cpp.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moestream.layers.attention import QKNorm
from moestream.layers.rope import RopeConfig
from moestream.layers.weights import Weights
from moestream.models.deepseek_moe import read_limits
from moestream.models.keys import Keys
from moestream.models.sliding_moe import SlidingMoE


class Step35(SlidingMoE):
    """Heads gated one by one; layers that see everything turn half as many numbers of a head."""

    output_gate = "sigmoid"
    scale_windowed = False
    dense_without_router = True

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the limits of inner values."""
        return super().read_own(keys) | read_limits(keys)

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

    @property
    def shared_width(self) -> int:
        """None where the file does not say."""
        return self.config.shared_intermediate_size
