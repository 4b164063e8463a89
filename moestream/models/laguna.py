"""Poolside's Laguna.

Source: llama.cpp, src/models/laguna.cpp.
"""

from moestream.models.sliding_moe import SlidingMoE


class Laguna(SlidingMoE):
    """Attention gated by a softplus, more heads in windowed layers, a shared expert."""

    output_gate = "softplus"
    first_full = True
    scale_windowed = False

    @property
    def shared_width(self) -> int:
        """Files without it give the shared expert the width of a routed one."""
        config = self.config
        return config.shared_intermediate_size or max(config.shared_experts, 1) * self.expert_width
