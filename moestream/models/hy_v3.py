"""Hunyuan 3 (hy_v3).

Source: llama.cpp, src/models/hy-v3.cpp.
"""

from moestream.models.deepseek_moe import DeepSeekMoE


class HyV3(DeepSeekMoE):
    """Norms head by head, sigmoid gates with a bias that only selects, one shared expert."""

    rope_style = "half"
    qk_norm = "head"
    dense_without_router = True
    default_shared = 1

    @property
    def shared_width(self) -> int:
        """Files without it give the shared expert the routed experts' width."""
        return self.config.shared_intermediate_size or self.expert_width
