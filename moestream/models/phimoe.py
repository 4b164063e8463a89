"""Phi-3.5-MoE and Phi-mini-MoE.

The published models norm by mean and variance. llama.cpp's norms are by the root mean square, with
the same weights and biases, and what its users run is what runs here.

Source: arXiv 2404.14219 (Phi-3.5-MoE), arXiv 2402.13753 (LongRoPE); llama.cpp,
src/models/phimoe.cpp and phi3.cpp.
"""

import numpy as np
from numpy.typing import NDArray

from moestream.layers.weights import Weights
from moestream.models.decoder import Decoder


class PhiMoE(Decoder):
    """Biases on norms, projections and logits; RoPE by the length of the context."""

    rope_style = "half"
    norm_topk_prob = True

    def rope_factors(self, weights: Weights, context_length: int) -> NDArray[np.float32] | None:
        """Factors for contexts as long as the first training's, or for longer ones."""
        if weights.has("rope_freqs.weight"):
            return super().rope_factors(weights, context_length)
        rope = self.config.rope
        kind = "long" if context_length > rope.original_context else "short"
        return weights.optional_floats(f"rope_factors_{kind}.weight", rope.dimensions // 2)
