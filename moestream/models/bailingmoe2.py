"""Ling 2.0 and Ring 2.0.

Source: arXiv 2510.22115; llama.cpp, src/models/bailingmoe2.cpp.
"""

from moestream.models.biased_experts import BiasedExperts


class BailingMoE2(BiasedExperts):
    """Queries, keys and values from one matrix, normed head by head and rotated in part."""

    rope_style = "half"
    qk_norm = "head"
