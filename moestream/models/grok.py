"""Grok 1 and 2.

Source: llama.cpp, src/models/grok.cpp, src/llama-graph.cpp (``build_attn_mha``).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.layers.attention import Attention
from moestream.layers.ffn import GatedMLP
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.blocks import PostNormedLayer
from moestream.models.config import SUPPORTED, ModelConfig, read_rope
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys

_EMBEDDING, _LOGIT, _SCORE = 6144**0.5, 3**-0.5, 128**-0.5
"""Factors of Grok 1, whose older files have no keys for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrokConfig(ModelConfig):
    """Factors of embeddings, scores and logits, and what the last two stay within, 0 for none."""

    embedding_scale: float
    attention_scale: float
    attention_cap: float
    logit_scale: float
    logit_cap: float


class GrokMoE(MoE):
    """A dense network beside the experts, where the file has one."""

    def join(self, routed: Array, beside: Array | None) -> Array:
        """As far from zero as one of them would be."""
        joined = super().join(routed, beside)
        return joined if beside is None else joined * math.sqrt(0.5)


class Grok(Decoder):
    """Norms after both branches too; scores of attention are bounded by a tanh."""

    supported = SUPPORTED | {
        "rope.scaling.yarn_ext_factor": ((1.0,), "1: YaRN mixes as the paper says"),
    }
    rope_style = "half"
    norm_topk_prob = True
    activation = "gelu"
    mixture = GrokMoE
    config: GrokConfig

    @classmethod
    def read_config(cls, keys: Keys) -> GrokConfig:
        """Add the factors and bounds; YaRN leaves more as it is than elsewhere."""
        keys.require(cls.supported)
        head_dim = keys.positive("embedding_length") // keys.positive("attention.head_count")
        rope = replace(
            read_rope(keys, keys.count("attention.key_length", head_dim)),
            kept_rotations=keys.above(0, "rope.scaling.yarn_beta_fast", 8.0),
            stretched_rotations=keys.above(0, "rope.scaling.yarn_beta_slow", 1.0),
        )
        return GrokConfig.read(
            keys,
            rope=rope,
            embedding_scale=keys.number("embedding_scale", _EMBEDDING),
            attention_scale=keys.number("attention.output_scale", _SCORE),
            attention_cap=keys.above(0, "attn_logit_softcapping", 30.0),
            logit_scale=keys.number("logit_scale", _LOGIT),
            logit_cap=keys.number("final_logit_softcapping", 0.0),
        )

    def layer(self, weights: Weights, index: int) -> PostNormedLayer:
        """A layer whose norms have names of their own."""
        config, after = self.config, "layer_output_norm.weight"
        return PostNormedLayer(
            weights,
            config.hidden_size,
            config.rms_norm_eps,
            self.mixer(weights, index),
            self.ffn(weights, index),
            names=(
                "attn_output_norm.weight",
                after if weights.has(after) else "post_ffw_norm.weight",
            ),
        )

    def mixer(self, weights: Weights, index: int) -> Attention:
        """Attention with its own scale and bound."""
        config = self.config
        scale, cap = config.attention_scale, config.attention_cap
        return self.attention(weights, index, scale=scale, cap=cap)

    def shared(self, weights: Weights, index: int) -> GatedMLP | None:
        """The dense network beside the experts."""
        if not weights.has("ffn_up.weight"):
            return None
        width = self.config.intermediate_sizes[index]
        return GatedMLP(weights, self.config.hidden_size, width, gate=self.gating(index))

    @property
    def expert_width(self) -> int:
        """That of dense networks in Grok 1."""
        return self.config.moe_intermediate_size or self.config.intermediate_sizes[-1]

    def embed(self, tokens: NDArray[np.int32]) -> Array:
        """Scaled embeddings: (T,) -> (T, E)."""
        return super().embed(tokens) * self.config.embedding_scale

    def logits(self, hidden: Array) -> NDArray[np.float32]:
        """Scaled logits, no further from 0 than the cap: (T, E) -> (T, V)."""
        cap, logits = self.config.logit_cap, super().logits(hidden)
        logits = logits * np.float32(self.config.logit_scale)
        return np.tanh(logits / cap) * cap if cap else logits
