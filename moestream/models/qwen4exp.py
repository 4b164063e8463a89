"""Qwen3.8 Flash-Next: Qwen3.5's layers around several streams, a table of n-grams, chosen blocks.

Source: llama.cpp, src/models/qwen4exp.cpp.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, AttentionShape
from moestream.errors import ModelFormatError
from moestream.layers.batch import CHUNK_TOKENS, Batch
from moestream.layers.block_attention import BlockAttention, BlockIndexShape
from moestream.layers.cache import StateShape
from moestream.layers.gated_streams import GatedConnection, GatedReader, GatedShape
from moestream.layers.hyper import in_each
from moestream.layers.ngrams import NGrams, NGramShape
from moestream.layers.weights import Weights
from moestream.models.blocks import Halves, HyperLayer, Mixer
from moestream.models.keys import Keys
from moestream.models.ngram_keys import read_grams
from moestream.models.qwen3next import Qwen3NextConfig
from moestream.models.qwen35moe import Qwen35MoE


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen4Config(Qwen3NextConfig):
    """``index`` is that of layers that attend, of blocks of ``ratios``, by layer, 0 for all.

    ``grams`` come in before layer ``gram_layer``.
    """

    streams: GatedShape
    index: BlockIndexShape
    ratios: tuple[int, ...]
    grams: NGramShape | None
    gram_layer: int

    @property
    def row_size(self) -> int:
        """Of all streams, and of the rows that were read."""
        return (self.streams.streams + 1) * self.hidden_size

    def may_begin(self, layer: int) -> bool:
        """Only the first, where n-grams are made of tokens: no other part is told of these."""
        return layer == 0 or self.grams is None

    @property
    def choice_bytes(self) -> int:
        """A byte for each token of a chunk; keys, and what is made of them."""
        return CHUNK_TOKENS + 4 * 2 * self.index.dim if any(self.ratios) else 0

    def attended_state(self, layer: int) -> StateShape:
        """Keys and values; behind keys, what the index goes by."""
        heads = self.kv_heads[layer]
        behind = self.index.dim // heads if self.ratios[layer] else 0
        return AttentionShape(heads, self.head_dim + behind, self.value_dim)

    def state_shapes(self) -> tuple[StateShape, ...]:
        """Behind those of all layers, what n-grams reach back to."""
        shapes = Qwen3NextConfig.state_shapes(self)
        width = self.streams.streams * self.streams.size
        return shapes if self.grams is None else (*shapes, self.grams.state(width))


class Qwen4Layer(HyperLayer):
    """N-grams first, where there are any."""

    grams: NGrams | None = None

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``."""
        return super().halves(x if self.grams is None else self.grams(x, batch), batch, index)


class Qwen4Exp(Qwen35MoE):
    """No norms but those of the streams; delta nets with sigmoid gates."""

    predicts_further = False
    attn_norm = ""
    ffn_norm = ""
    delta_gate = "sigmoid"
    config_type = Qwen4Config
    config: Qwen4Config

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add streams, the index and n-grams."""
        size, heads = keys.positive("embedding_length"), keys.attending_heads(cls.attends_every)
        grams, gram_layer = read_grams(keys, size, heads)
        index = BlockIndexShape(
            heads=keys.positive("attention.indexer.head_count"),
            dim=keys.size("attention.indexer.key_length"),
            most=keys.positive("attention.indexer.top_k"),
            size=0,
        )
        return super().read_own(keys) | {
            "streams": GatedShape(
                streams=keys.size("hyper_connection.count"),
                size=size,
                rank=keys.size("hyper_connection.low_rank"),
                eps=keys.number("attention.layer_norm_rms_epsilon"),
            ),
            "index": index,
            "ratios": _read_ratios(keys, index, heads),
            "grams": grams,
            "gram_layer": gram_layer,
        }

    def layer(self, weights: Weights, index: int) -> Qwen4Layer:
        """Build one layer, and what it reads and writes by."""
        config = self.config
        layer = Qwen4Layer(
            self.mixer(weights, index),
            self.ffn(weights, index),
            GatedConnection(weights, "hc_attn", config.streams),
            GatedConnection(weights, "hc_ffn", config.streams),
        )
        if config.grams is not None and index == config.gram_layer:
            outside, place = Weights(weights.file, weights.backend), config.num_layers
            layer.grams = NGrams(weights, outside, config.grams, config.streams, place)
            self.tables.append(layer.grams.table)
        return layer

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """A delta net, or gated attention to everything or to blocks."""
        ratio = self.config.ratios[index]
        if not (ratio and self.config.kv_heads[index]):
            return super().mixer(weights, index)
        make = partial(BlockAttention, index=replace(self.config.index, size=ratio))
        return self.attention(weights, index, make=make)

    def last_norm(self, weights: Weights) -> GatedReader:
        """One row of all streams."""
        return GatedReader(weights, "output_hc", self.config.streams)

    def enter(self, tokens: Sequence[NDArray[np.int32]], chunks: Sequence[Batch]) -> list[Array]:
        """Begin to read what n-grams want."""
        if self.config.grams is not None:
            grams = cast(Qwen4Layer, self.layers[self.config.gram_layer]).grams
            assert grams is not None, "the layer's"
            before = None
            for ids, batch in zip(tokens, chunks, strict=True):
                before = grams.begin(ids, batch, before)
        return super().enter(tokens, chunks)

    def embed(self, tokens: NDArray[np.int32]) -> Array:
        """The same in each stream: (T,) -> (T, S, E)."""
        return in_each(self.backend, super().embed(tokens), self.config.streams.streams)


def _read_ratios(keys: Keys, index: BlockIndexShape, kv_heads: tuple[int, ...]) -> tuple[int, ...]:
    """Positions in a block, by layer."""
    ratios = keys.per_layer("attention.compress_ratios", len(kv_heads), 0)
    for ratio, heads in zip(ratios, kv_heads, strict=True):
        if ratio and heads and (index.most % ratio or index.dim % heads):
            raise ModelFormatError(
                f"{keys.file.path}: {keys.name('attention.compress_ratios')} has {ratio}, by which "
                f"{index.most} positions are not whole blocks, or {heads} heads do not divide an "
                f"index of {index.dim}"
            )
    return ratios
