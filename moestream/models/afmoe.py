"""Arcee's Trinity (afmoe).

Source: llama.cpp, src/models/afmoe.cpp.
"""

import math

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.layers.weights import Weights
from moestream.models.blocks import PostNormedLayer
from moestream.models.sliding_moe import SlidingMoE

_TURNLESS = 4
"""Every so many-th layer is not turned."""


class AFMoE(SlidingMoE):
    """Gated attention, norms after both branches too, and scaled embeddings."""

    output_gate = "sigmoid"

    def layer(self, weights: Weights, index: int) -> PostNormedLayer:
        """One layer, with norms on both sides."""
        config = self.config
        parts = self.mixer(weights, index), self.ffn(weights, index)
        return PostNormedLayer(weights, config.hidden_size, config.rms_norm_eps, *parts)

    def turns(self, index: int) -> bool:
        """All but every fourth, which sees everything in the published models."""
        return (index + 1) % _TURNLESS != 0

    def embed(self, tokens: NDArray[np.int32]) -> Array:
        """Embeddings, scaled by the square root of their width."""
        return super().embed(tokens) * math.sqrt(self.config.hidden_size)
