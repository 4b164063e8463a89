"""GLM-4.5 and 4.6, with their Air.

Source: arXiv 2508.06471; llama.cpp, src/models/glm4-moe.cpp.
"""

from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.deepseek_moe import DeepSeekMoE


class GLM4MoE(DeepSeekMoE):
    """Biased queries, keys and values that turn in part; the larger ones norm queries and keys.

    The second norm is called after what comes before.
    """

    rope_style = "half"
    predicts_further = True
    ffn_norm = "post_attention_norm.weight"

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention, with norms where the file has them."""
        normed = weights.has("attn_q_norm.weight")
        return self.attention(weights, index, qk_norm="head" if normed else "none")
