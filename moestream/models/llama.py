"""Llama, Mistral and Mixtral.

Source: arXiv 2302.13971 (Llama), arXiv 2401.04088 (Mixtral).
"""

from moestream.layers.ffn import FeedForward
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.decoder import Decoder


class Llama(Decoder):
    """Dense SwiGLU, or Mixtral's experts where the file counts any; their weights sum to one."""

    rope_style = "interleaved"
    norm_topk_prob = True

    def ffn(self, weights: Weights, index: int) -> FeedForward | MoE:
        """Experts or a dense network, by the metadata."""
        return self.moe(weights, index) if self.config.num_experts else self.dense(weights, index)
