"""Arcee's Trinity (afmoe).

Source: llama.cpp, src/models/afmoe.cpp.
"""

import math

from moestream.layers.weights import Weights
from moestream.models.blocks import PostNormedLayer
from moestream.models.keys import Keys
from moestream.models.sliding_moe import SlidingMoE

_TURNLESS = 4
"""Every so many-th layer is not turned."""


class AFMoE(SlidingMoE):
    """Gated attention, norms after both branches too, and scaled embeddings."""

    output_gate = "sigmoid"

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Embeddings are scaled by the square root of their width."""
        scale = math.sqrt(keys.positive("embedding_length"))
        return super().read_own(keys) | {"embedding_scale": scale}

    def layer(self, weights: Weights, index: int) -> PostNormedLayer:
        """One layer, with norms on both sides."""
        config = self.config
        parts = self.mixer(weights, index), self.ffn(weights, index)
        return PostNormedLayer(weights, config.hidden_size, config.rms_norm_eps, *parts)

    def turns(self, index: int) -> bool:
        """All but every fourth, which sees everything in the published models."""
        return (index + 1) % _TURNLESS != 0
