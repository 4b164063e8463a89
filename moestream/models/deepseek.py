"""DeepSeek-MoE, before latent attention.

Source: arXiv 2401.06066; llama.cpp, src/models/deepseek.cpp.
"""

from dataclasses import replace

from moestream.backends import Routing
from moestream.models.deepseek_moe import DeepSeekMoE, DeepSeekMoEConfig, read_mixture
from moestream.models.keys import Keys


class DeepSeek(DeepSeekMoE):
    """Softmax over all experts, whose weights are taken as they are."""

    rope_style = "interleaved"
    supported = DeepSeekMoE.supported | {"expert_gating_func": ((0, 1), "0 or 1: softmax")}

    @classmethod
    def read_config(cls, keys: Keys) -> DeepSeekMoEConfig:
        """The common dimensions and the mixture's."""
        keys.require(cls.supported)
        return DeepSeekMoEConfig.read(keys, **read_mixture(keys, "softmax"))

    def routing(self) -> Routing:
        """As the file says, but that nothing is normalised."""
        return replace(self.config.routing, normalise=False)
