"""Maple.

Source: llama.cpp, src/models/maple.cpp.
"""

from moestream.models.keys import Keys
from moestream.models.sliding_moe import SlidingMoE


class Maple(SlidingMoE):
    """Windowed layers turn, those that see everything do not; experts of bounded inner values.

    Gate and what it scales are bounded before the one passes.
    """

    supported = SlidingMoE.supported | {"expert_gating_func": ((0, 1), "0 or 1: softmax")}
    default_gating = "softmax"
    normalise = True
    limited = "silu_clamped"

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the bounds."""
        limits = keys.per_layer_numbers("swiglu_clamp_exp", keys.num_layers())
        return super().read_own(keys) | {"limits": limits}

    def turns(self, index: int) -> bool:
        """Windowed layers alone."""
        return self.config.windowed[index]
