"""Ling 2 and Ring 2.

Source: llama.cpp, src/models/bailingmoe2.cpp.
"""

from moestream.models.deepseek_moe import DeepSeekMoE


class BailingMoE2(DeepSeekMoE):
    """Norms head by head, rotation in part, one matrix of queries, keys and values."""

    rope_style = "half"
    qk_norm = "head"

    @property
    def shared_width(self) -> int:
        """All shared experts side by side; they may have a width of their own."""
        config = self.config
        width = config.shared_intermediate_size or self.expert_width
        return config.shared_experts * width
