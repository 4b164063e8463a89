"""DeepSeek-V2 and V3, and what is built like them: GLM-4.7-Flash, Kimi K2, Moonlight.

Source: arXiv 2405.04434, 2412.19437; llama.cpp, src/models/deepseek2.cpp.
"""

from moestream.backends import Gating
from moestream.models.keys import Keys
from moestream.models.latent_moe import LatentMoE


class DeepSeek2(LatentMoE):
    """Latent attention before DeepSeek's mixture."""

    predicts_further = True

    @classmethod
    def read_default_gating(cls, keys: Keys) -> Gating:
        """Early files do not say; GLM-4.7-Flash is known by its size."""
        glm = keys.num_layers() in (47, 48) and keys.vocab_size() == 154880
        return "sigmoid" if glm else "softmax"
