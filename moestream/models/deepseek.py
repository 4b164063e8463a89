"""DeepSeek-MoE, before latent attention.

Source: arXiv 2401.06066; llama.cpp, src/models/deepseek.cpp.
"""

from moestream.models.deepseek_moe import DeepSeekMoE


class DeepSeek(DeepSeekMoE):
    """Softmax over all experts, whose weights are taken as they are."""

    rope_style = "interleaved"
    supported = DeepSeekMoE.supported | {"expert_gating_func": ((0, 1), "0 or 1: softmax")}
    default_gating = "softmax"
    normalise = False
