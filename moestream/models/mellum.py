"""Mellum 2.

Source: llama.cpp, src/models/mellum.cpp.
"""

from moestream.models.sliding_moe import SlidingMoE


class Mellum(SlidingMoE):
    """Qwen3-MoE of which three layers of four see a window, and are turned as if not stretched."""

    supported = SlidingMoE.supported | {"expert_gating_func": ((0, 1), "0 or 1: softmax")}
    default_gating = "softmax"
    normalise = True
    scale_windowed = False
    windowed_base = False
