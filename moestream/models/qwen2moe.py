"""Qwen1.5-MoE and Qwen2-MoE.

Source: arXiv 2407.10671.
"""

from moestream.models.decoder import Decoder


class Qwen2MoE(Decoder):
    """Biased projections, raw router weights, and a shared expert behind a sigmoid gate."""

    rope_style = "half"
    norm_topk_prob = False
    shared_gate = True
    own_expert_width = True

    @property
    def shared_width(self) -> int:
        """Files without it give the shared expert the dense width."""
        return self.config.shared_intermediate_size or self.config.intermediate_sizes[-1]
