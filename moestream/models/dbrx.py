"""DBRX.

Source: llama.cpp, src/models/dbrx.cpp.
"""

from dataclasses import dataclass

from moestream.layers.attention import Attention
from moestream.layers.weights import Weights
from moestream.models.config import ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class DBRXConfig(ModelConfig):
    """Queries, keys and values stay within ``clamp``; 0 for no bound."""

    clamp: float


class DBRX(Decoder):
    """Norms by mean and deviation, bounded projections, weights that sum to one."""

    rope_style = "half"
    norm_topk_prob = True
    ffn_norm = "attn_output_norm.weight"
    config: DBRXConfig

    @classmethod
    def read_config(cls, keys: Keys) -> DBRXConfig:
        """Add the bound; the epsilon has the key of the other norm."""
        keys.require(cls.supported)
        return DBRXConfig.read(
            keys,
            rms_norm_eps=keys.number("attention.layer_norm_epsilon"),
            clamp=keys.number("attention.clamp_kqv"),
        )

    @property
    def centred_norms(self) -> bool:
        """All of them."""
        return True

    def mixer(self, weights: Weights, index: int) -> Attention:
        """Attention of bounded numbers."""
        return self.attention(weights, index, clamp=self.config.clamp)
