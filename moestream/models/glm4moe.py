"""GLM-4.5, GLM-4.5-Air and GLM-4.6.

Source: arXiv 2508.06471; llama.cpp, src/models/glm4-moe.cpp.
"""

from moestream.layers.attention import Attention, QKNorm
from moestream.layers.weights import Weights
from moestream.models.biased_experts import BiasedExperts


class GLM4MoE(BiasedExperts):
    """Biased projections, heads rotated in part; the large ones norm queries and keys."""

    rope_style = "half"
    ffn_norm = "post_attention_norm.weight"

    def mixer(self, weights: Weights, index: int) -> Attention:
        """Norms of queries and keys where the file has them."""
        qk_norm: QKNorm = "head" if weights.has("attn_q_norm.weight") else "none"
        return self.attention(weights, index, qk_norm=qk_norm)
