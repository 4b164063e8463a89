"""Hunyuan-A13B.

Source: llama.cpp, src/models/hunyuan-moe.cpp.
"""

from moestream.models.decoder import Decoder


class HunyuanMoE(Decoder):
    """Queries and keys normed after they are turned; a shared expert without a gate."""

    rope_style = "half"
    qk_norm = "head_turned"
    norm_topk_prob = True

    @property
    def shared_width(self) -> int:
        """Files without it give the shared expert the routed experts' width."""
        return self.config.shared_intermediate_size or self.config.intermediate_sizes[-1]
