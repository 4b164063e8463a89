"""Qwen3-MoE.

Source: arXiv 2505.09388.
"""

from moestream.models.decoder import Decoder


class Qwen3MoE(Decoder):
    """Queries and keys normed head by head; router weights that sum to one."""

    rope_style = "half"
    qk_norm = "head"
    norm_topk_prob = True

    @property
    def expert_width(self) -> int:
        """Files without it divide the dense width among the chosen experts."""
        config = self.config
        return config.moe_intermediate_size or (
            config.intermediate_size // config.num_experts_per_tok
        )
