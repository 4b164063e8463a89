"""Gemma 4, with experts (26B-A4B) or without (31B).

Not supported are per-layer embeddings and layers that attend to an earlier one's keys and values:
those of E2B and E4B, which have no experts.

Source: llama.cpp, src/models/gemma4.cpp; arXiv 2503.19786 (Gemma 3, whose attention it keeps).
"""

import math
from dataclasses import dataclass
from functools import cached_property

from moestream.backends import Array, AttentionShape, Routing
from moestream.errors import ModelFormatError
from moestream.layers.attention import Attention
from moestream.layers.batch import Batch
from moestream.layers.cache import StateShape
from moestream.layers.ffn import FeedForward, Gate
from moestream.layers.moe import MoE
from moestream.layers.norm import RMSNorm
from moestream.layers.rope import Rope, RopeConfig
from moestream.layers.weights import Weights
from moestream.models.blocks import PostNormedLayer
from moestream.models.config import SUPPORTED, ModelConfig, read_rope, read_turned
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma4Config(ModelConfig):
    """``head_dim`` and ``rope`` are those of layers that see everything."""

    sliding: tuple[bool, ...]
    """Which layers see no more than ``window`` positions."""
    window: int
    sliding_head_dim: int
    sliding_rope: RopeConfig

    def head_dim_of(self, layer: int) -> int:
        """D in this layer."""
        return self.sliding_head_dim if self.sliding[layer] else self.head_dim

    def attended_state(self, layer: int) -> StateShape:
        """Keys and values as long as the layer's heads."""
        dim = self.head_dim_of(layer)
        return AttentionShape(self.kv_heads[layer], dim, dim)


class Gemma4MoE(MoE):
    """Experts and a dense network side by side, each between norms of its own.

    The router sees the residual stream normed for it alone.
    """

    def __init__(
        self,
        weights: Weights,
        config: Gemma4Config,
        width: int,
        routing: Routing,
        dense: FeedForward,
    ) -> None:
        hidden, eps = config.hidden_size, config.rms_norm_eps
        super().__init__(
            weights,
            hidden_size=hidden,
            width=width,
            num_experts=config.num_experts,
            routing=routing,
            eps=eps,
            norm="pre_ffw_norm_2.weight",
            gate=Gate("gelu"),
        )
        self.router_norm = RMSNorm(weights, "ffn_gate_inp.scale", hidden, eps, factor=hidden**-0.5)
        self.dense = dense
        self.dense_post_norm = RMSNorm(weights, "post_ffw_norm_1.weight", hidden, eps)
        self.routed_post_norm = RMSNorm(weights, "post_ffw_norm_2.weight", hidden, eps)

    def run_beside(self, x: Array, normed: Array) -> Array:
        """The dense network, on the residual stream."""
        return self.dense_post_norm(self.dense(x))

    def join(self, routed: Array, beside: Array | None) -> Array:
        """Norm the experts' sum before it is added."""
        return super().join(self.routed_post_norm(routed), beside)


class Gemma4Layer(PostNormedLayer):
    """The whole layer is scaled."""

    def __init__(
        self, weights: Weights, config: Gemma4Config, mixer: Attention, ffn: FeedForward | MoE
    ) -> None:
        super().__init__(weights, config.hidden_size, config.rms_norm_eps, mixer, ffn)
        self.output_scale = weights.optional_vector("layer_output_scale.weight", 1)

    def __call__(self, x: Array, batch: Batch, index: int) -> Array:
        """(T, E) -> (T, E)."""
        x = super().__call__(x, batch, index)
        return x if self.output_scale is None else x * self.output_scale


class Gemma4(Decoder):
    """Layers that slide and layers that see all, each kind with heads and rotation of its own."""

    config_type = Gemma4Config
    config: Gemma4Config
    supported = SUPPORTED | {
        "embedding_length_per_layer_input": ((0,), "0: no embeddings of each layer's own"),
        "attention.shared_kv_layers": ((0,), "0: every layer has keys and values of its own"),
    }
    rope_style = "half"
    norm_topk_prob = True
    own_expert_width = True

    @cached_property
    def sliding_rope(self) -> Rope:
        """What turns sliding layers."""
        return Rope(self.config.sliding_rope)

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Those of the sliding layers, and factors that all files share."""
        head_dim, sliding_dim = (_head_dim(keys, suffix) for suffix in ("", "_swa"))
        rope = read_rope(keys, head_dim)
        turned = read_turned(keys, "rope.dimension_count_swa", rope.dimensions, sliding_dim)
        pattern = "attention.sliding_window_pattern"
        return {
            "rope": rope,
            "sliding": keys.marked_layers(pattern, keys.num_layers()),
            "window": keys.positive("attention.sliding_window"),
            "sliding_head_dim": sliding_dim,
            "sliding_rope": RopeConfig(turned, keys.above(1, "rope.freq_base_swa", 10000.0)),
            "embedding_scale": math.sqrt(keys.positive("embedding_length")),
            "attention_scale": 1.0,
            "logit_cap": keys.number("final_logit_softcapping", 30.0),
        }

    def layer(self, weights: Weights, index: int) -> Gemma4Layer:
        """One layer, with the norms that are only here."""
        return Gemma4Layer(
            weights, self.config, self.mixer(weights, index), self.ffn(weights, index)
        )

    def mixer(self, weights: Weights, index: int) -> Attention:
        """Attention with unscaled scores; values are normed, and may be the keys."""
        config = self.config
        sliding = config.sliding[index]
        return Attention(
            weights,
            hidden_size=config.hidden_size,
            num_heads=config.num_heads,
            num_kv_heads=config.kv_heads[index],
            head_dim=config.head_dim_of(index),
            value_dim=config.head_dim_of(index),
            eps=config.rms_norm_eps,
            rope=self.sliding_rope if sliding else self.rope,
            rope_style=self.rope_style,
            qk_norm="head",
            scale=config.attention_scale,
            window=config.window if sliding else 0,
            keys_as_values=not weights.has("attn_v.weight"),
            norm_values=True,
        )

    def ffn(self, weights: Weights, index: int) -> FeedForward | MoE:
        """A dense network, with experts beside it where the metadata counts any."""
        config = self.config
        dense = FeedForward(
            weights,
            hidden_size=config.hidden_size,
            width=config.intermediate_sizes[index],
            eps=config.rms_norm_eps,
            gate=Gate("gelu"),
        )
        if config.num_experts == 0:
            return dense
        return Gemma4MoE(weights, config, self.expert_width, self.routing(), dense)


def _head_dim(keys: Keys, suffix: str) -> int:
    """Width of a head's keys and values, which must be of one."""
    key, value = (keys.size(f"attention.{part}_length{suffix}") for part in ("key", "value"))
    if key != value:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name(f'attention.value_length{suffix}')} is {value}, "
            f"expected the {key} of {keys.name(f'attention.key_length{suffix}')}"
        )
    return key
