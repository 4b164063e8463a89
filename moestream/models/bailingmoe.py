"""Ling and Bailing MoE, the first ones.

Source: arXiv 2503.05139; llama.cpp, src/models/bailingmoe.cpp.
"""

from moestream.models.deepseek_moe import DeepSeekMoE, DeepSeekMoEConfig, read_mixture
from moestream.models.keys import Keys


class BailingMoE(DeepSeekMoE):
    """DeepSeek's first mixture, in every layer."""

    rope_style = "interleaved"
    supported = DeepSeekMoE.supported | {"expert_gating_func": ((0, 1), "0 or 1: softmax")}

    @classmethod
    def read_config(cls, keys: Keys) -> DeepSeekMoEConfig:
        """No dense layers lead, whatever the file says."""
        keys.require(cls.supported)
        mixture = read_mixture(keys, "softmax") | {"leading_dense_layers": 0}
        return DeepSeekMoEConfig.read(keys, **mixture)
