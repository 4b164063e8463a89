"""DBRX.

Source: llama.cpp, src/models/dbrx.cpp.
"""

from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


class DBRX(Decoder):
    """Norms by mean and deviation, bounded projections, weights that sum to one."""

    rope_style = "half"
    norm_topk_prob = True
    ffn_norm = "attn_output_norm.weight"

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """The bound; the epsilon has the key of the other norm."""
        return {
            "centred": True,
            "rms_norm_eps": keys.number("attention.layer_norm_epsilon"),
            "attention_clamp": keys.number("attention.clamp_kqv"),
        }
