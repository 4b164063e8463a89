"""Qwen3-MoE.

Source: arXiv 2505.09388.
"""

from moestream.models.decoder import Decoder


class Qwen3MoE(Decoder):
    """Queries and keys normed head by head; router weights that sum to one."""

    rope_style = "half"
    qk_norm = "head"
    norm_topk_prob = True
    own_expert_width = True
