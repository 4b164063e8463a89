"""Granite 3 and 4 mixtures without state-space layers.

Source: llama.cpp, src/models/granite-moe.cpp; the multipliers are those of arXiv 2203.03466.
"""

from typing import ClassVar

from moestream.layers.weights import Weights
from moestream.models.blocks import ScaledLayer
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


class GraniteMoE(Decoder):
    """Mixtral's layer between multipliers; a shared expert where the file has one."""

    rope_style = "interleaved"
    norm_topk_prob = True
    default_logit_scale: ClassVar[float | None] = None
    """What logits are divided by in a file that does not say; None: it must."""

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """The multipliers; one that is missing or 0 is none."""
        return {
            "embedding_scale": keys.number("embedding_scale", 0.0) or 1.0,
            "attention_scale": keys.number("attention.scale", 0.0) or None,
            "residual_scale": keys.number("residual_scale", 0.0) or 1.0,
            "logit_scale": 1 / keys.above(0, "logit_scale", cls.default_logit_scale),
        }

    def layer(self, weights: Weights, index: int) -> ScaledLayer:
        """A layer with scaled branches."""
        layer = ScaledLayer(self.mixer(weights, index), self.ffn(weights, index))
        layer.scale = self.config.residual_scale
        return layer

    @property
    def shared_width(self) -> int:
        """None where the file does not say."""
        return self.config.shared_intermediate_size
