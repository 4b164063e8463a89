"""ERNIE 4.5's text models with experts.

Source: ERNIE 4.5 Technical Report (Baidu, 2025); llama.cpp, src/models/ernie4-5-moe.cpp.
"""

from moestream.models.config import SUPPORTED
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


class Ernie45MoE(Decoder):
    """Dense layers first, then a biased choice, weights that sum to one, and shared experts."""

    # llama.cpp wants experts in every layer after the dense ones, whatever the step.
    supported = SUPPORTED | {
        "interleave_moe_layer_step": ((1,), "1: experts in every layer after the dense ones")
    }
    rope_style = "interleaved"
    norm_topk_prob = True
    own_expert_width = True

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """How many dense layers lead."""
        return {"leading_dense_layers": keys.count("leading_dense_block_count", 0)}

    @property
    def shared_width(self) -> int:
        """All shared experts side by side."""
        return self.config.shared_intermediate_size
