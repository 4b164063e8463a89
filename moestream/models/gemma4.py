"""Gemma 4, with experts (26B-A4B) or without (31B, E2B, E4B).

E2B and E4B have embeddings of each layer's own, and layers that attend to an earlier one's keys and
values.

Source: llama.cpp, src/models/gemma4.cpp; arXiv 2503.19786 (Gemma 3, whose attention it keeps).
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, AttentionRule, Backend, Routing
from moestream.gguf import GGUFFile
from moestream.layers.attention import Attention
from moestream.layers.batch import Batch
from moestream.layers.borrowed import BorrowingAttention, LendingAttention
from moestream.layers.ffn import FeedForward, Gate
from moestream.layers.moe import MoE
from moestream.layers.norm import RMSNorm
from moestream.layers.per_layer import PerLayer, PerLayerBranch
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights
from moestream.models.blocks import Halves, Mixer, PostNormedLayer
from moestream.models.decoder import Decoder
from moestream.models.gemma4_config import Gemma4Config, read_gemma4
from moestream.models.keys import Keys


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
        self, weights: Weights, config: Gemma4Config, mixer: Mixer, ffn: FeedForward | MoE
    ) -> None:
        hidden, eps, size = config.hidden_size, config.rms_norm_eps, config.per_layer
        super().__init__(weights, hidden, eps, mixer, ffn)
        self.branch = size and PerLayerBranch(weights, hidden_size=hidden, size=size, eps=eps)
        self.output_scale = weights.optional_vector("layer_output_scale.weight", 1)

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``."""
        x = yield from super().halves(x, batch, index)
        if self.branch:
            assert batch.given is not None, "begun with the pass"
            x = self.ffn.backend.add(x, self.branch(x, batch.given.of(index)))
        return x if self.output_scale is None else x * self.output_scale


class Gemma4(Decoder):
    """Layers that slide and layers that see all, each kind with heads and rotation of its own."""

    config_type = Gemma4Config
    config: Gemma4Config
    rope_style = "half"
    norm_topk_prob = True
    own_expert_width = True

    def __init__(
        self, file: GGUFFile, config: Gemma4Config, backend: Backend, context_length: int
    ) -> None:
        self.lenders = {
            config.lender(layer) for layer in range(config.own_kv_layers, config.num_layers)
        }
        super().__init__(file, config, backend, context_length)
        self.per_layer = None
        if config.per_layer:
            self.per_layer = PerLayer(
                Weights(file, backend),
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                size=config.per_layer,
                layers=config.num_layers,
                eps=config.rms_norm_eps,
            )
            self.tables.append(self.per_layer.table)

    @cached_property
    def sliding_rope(self) -> Rope:
        """What turns sliding layers."""
        return Rope(self.config.sliding_rope)

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """See ``read_gemma4``."""
        return read_gemma4(keys)

    def layer(self, weights: Weights, index: int) -> Gemma4Layer:
        """One layer, with the norms that are only here."""
        return Gemma4Layer(
            weights, self.config, self.mixer(weights, index), self.ffn(weights, index)
        )

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention with unscaled scores; values are normed, and may be the keys, or lent."""
        config = self.config
        sliding = config.sliding[index]
        if index >= config.own_kv_layers:
            return BorrowingAttention(
                weights,
                of=config.lender(index),
                hidden_size=config.hidden_size,
                num_heads=config.num_heads,
                head_dim=config.head_dim_of(index),
                eps=config.rms_norm_eps,
                rope=self.sliding_rope if sliding else self.rope,
                rope_style=self.rope_style,
                rule=AttentionRule(config.attention_scale, config.window if sliding else 0),
            )
        attention = LendingAttention if index in self.lenders else Attention
        return attention(
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

    def enter(self, tokens: Sequence[NDArray[np.int32]], chunks: Sequence[Batch]) -> list[Array]:
        """Begin to read what layers are given of tokens."""
        given = self.per_layer
        if given is None:
            return super().enter(tokens, chunks)
        wanted = [given.begin(ids) for ids in tokens]
        hidden = super().enter(tokens, chunks)
        for batch, rows, x in zip(chunks, wanted, hidden, strict=True):
            batch.given = given.give(rows, x)
        return hidden
