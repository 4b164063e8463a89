"""Granite 3 and 4 mixtures without state-space layers.

Source: llama.cpp, src/models/granite-moe.cpp; the multipliers are those of arXiv 2203.03466.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.layers.attention import Attention
from moestream.layers.weights import Weights
from moestream.models.blocks import ScaledLayer
from moestream.models.config import ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class GraniteMoEConfig(ModelConfig):
    """Factors of embeddings, attention scores and residual branches, and a divisor of logits."""

    embedding_scale: float
    attention_scale: float
    residual_scale: float
    logit_scale: float


class GraniteMoE(Decoder):
    """Mixtral's layer between multipliers; a shared expert where the file has one."""

    rope_style = "interleaved"
    norm_topk_prob = True
    config: GraniteMoEConfig

    @classmethod
    def read_config(cls, keys: Keys) -> GraniteMoEConfig:
        """Add the multipliers."""
        keys.require(cls.supported)
        return GraniteMoEConfig.read(keys, **read_multipliers(keys))

    def layer(self, weights: Weights, index: int) -> ScaledLayer:
        """A layer with scaled branches."""
        layer = ScaledLayer(self.mixer(weights, index), self.ffn(weights, index))
        layer.scale = self.config.residual_scale
        return layer

    def mixer(self, weights: Weights, index: int) -> Attention:
        """Attention with its own scale."""
        return self.attention(weights, index, scale=self.config.attention_scale or None)

    @property
    def shared_width(self) -> int:
        """None where the file does not say."""
        return self.config.shared_intermediate_size

    def embed(self, tokens: NDArray[np.int32]) -> Array:
        """Scaled embeddings: (T,) -> (T, E)."""
        return super().embed(tokens) * self.config.embedding_scale

    def logits(self, hidden: Array) -> NDArray[np.float32]:
        """Divided logits: (T, E) -> (T, V)."""
        return super().logits(hidden) * np.float32(1 / self.config.logit_scale)


def read_multipliers(keys: Keys, logit_scale: float | None = None) -> dict[str, object]:
    """Fields of the multipliers; a factor that is missing or 0 is none.

    ``logit_scale`` is that of a file that does not say.
    """
    return {
        "embedding_scale": keys.number("embedding_scale", 0.0) or 1.0,
        "attention_scale": keys.number("attention.scale", 0.0),
        "residual_scale": keys.number("residual_scale", 0.0) or 1.0,
        "logit_scale": keys.above(0, "logit_scale", logit_scale),
    }
