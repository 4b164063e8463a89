"""Llama, Mistral and Mixtral.

Source: arXiv 2302.13971 (Llama), arXiv 2401.04088 (Mixtral).
"""

from moestream.models.decoder import Decoder


class Llama(Decoder):
    """Dense SwiGLU, or Mixtral's experts where the file counts any; their weights sum to one."""

    rope_style = "interleaved"
    norm_topk_prob = True
    dense_without_experts = True
