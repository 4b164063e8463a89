"""OLMoE.

Source: arXiv 2409.02060.
"""

from moestream.models.decoder import Decoder


class OLMoE(Decoder):
    """Queries and keys normed over all heads together; raw router weights."""

    rope_style = "half"
    qk_norm = "whole"
    norm_topk_prob = False
