"""Grok 1 and 2.

Source: llama.cpp, src/models/grok.cpp, src/llama-graph.cpp (``build_attn_mha``).
"""

import math
from dataclasses import replace

from moestream.backends import Array
from moestream.layers.ffn import GatedMLP
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.blocks import PostNormedLayer
from moestream.models.config import SUPPORTED, read_rope
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys

_EMBEDDING, _LOGIT, _SCORE = 6144**0.5, 3**-0.5, 128**-0.5
"""Factors of Grok 1, whose older files have no keys for them."""


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

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Factors and bounds; YaRN leaves more as it is than elsewhere."""
        rope = replace(
            read_rope(keys, keys.head_dim()),
            kept_rotations=keys.above(0, "rope.scaling.yarn_beta_fast", 8.0),
            stretched_rotations=keys.above(0, "rope.scaling.yarn_beta_slow", 1.0),
        )
        return {
            "rope": rope,
            "embedding_scale": keys.number("embedding_scale", _EMBEDDING),
            "attention_scale": keys.number("attention.output_scale", _SCORE),
            "attention_cap": keys.above(0, "attn_logit_softcapping", 30.0),
            "logit_scale": keys.number("logit_scale", _LOGIT),
            "logit_cap": keys.number("final_logit_softcapping", 0.0),
        }

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
