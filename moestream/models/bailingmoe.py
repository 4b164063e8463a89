"""Ling and Bailing MoE, the first ones.

Source: arXiv 2503.05139; llama.cpp, src/models/bailingmoe.cpp.
"""

from moestream.models.deepseek_moe import DeepSeekMoE
from moestream.models.keys import Keys


class BailingMoE(DeepSeekMoE):
    """DeepSeek's first mixture, in every layer."""

    rope_style = "interleaved"
    supported = DeepSeekMoE.supported | {"expert_gating_func": ((0, 1), "0 or 1: softmax")}
    default_gating = "softmax"

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """No dense layers lead, whatever the file says."""
        return super().read_own(keys) | {"leading_dense_layers": 0}
