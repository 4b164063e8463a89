"""DeepSeek-V4.

Source: DeepSeek-V4 (DeepSeek-AI, 2026); llama.cpp, src/models/deepseek4.cpp.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, Backend
from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.gguf import GGUFFile
from moestream.layers.batch import Batch
from moestream.layers.cache import StateShape
from moestream.layers.compressed_attention import CompressedAttention, CompressedSizes
from moestream.layers.hyper import HyperShape, StreamReader, in_each
from moestream.layers.indexer import IndexShape
from moestream.layers.mixed_streams import MixedConnection
from moestream.layers.rope import Rope, RopeConfig
from moestream.layers.token_experts import TokenExperts
from moestream.layers.weights import Weights
from moestream.models.blocks import Block, HyperLayer, Mixer
from moestream.models.config import read_rope
from moestream.models.deepseek_moe import DeepSeekMoE, DeepSeekMoEConfig, read_told_limits
from moestream.models.keys import Keys
from moestream.models.mixed_keys import MixedRows, read_mixed

_RATIOS = (0, 4, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSeek4Config(MixedRows, DeepSeekMoEConfig):
    """``ratios`` are how many positions a stretch has, by layer; such layers turn by another rope.

    In the first ``hashed`` layers, a token's id chooses its experts.
    """

    hyper: HyperShape
    iterations: int
    sizes: CompressedSizes
    ratios: tuple[int, ...]
    stretched_rope: RopeConfig
    hashed: int

    def may_begin(self, layer: int) -> bool:
        """Only the first: other machines are told neither tokens nor what cannot be taken back."""
        return layer == 0

    @property
    def choice_bytes(self) -> int:
        """Of the rows that stand for a few positions each."""
        sizes = (self.sizes.read_bytes(ratio) // ratio for ratio in self.ratios if ratio)
        return max(sizes, default=0)

    def attended_state(self, layer: int) -> StateShape:
        """A row a position, and what stretches are made of."""
        return self.sizes.state(self.ratios[layer])


class DeepSeek4Layer(HyperLayer):
    """Experts are a token's own, where there is a table of them."""

    table: TokenExperts | None = None

    def run_ffn(
        self,
        x: Array,
        batch: Batch,
        index: int,
        *,
        routed_by: Array | None = None,
        chosen: NDArray[np.int32] | None = None,
    ) -> Array:
        """See ``Layer.run_ffn``."""
        if self.table is not None:
            chosen = self.table(batch.tokens)
        return super().run_ffn(x, batch, index, routed_by=routed_by, chosen=chosen)


class DeepSeek4(DeepSeekMoE):
    """Windows and compressed rows in place of latents, around streams that are mixed."""

    rope_style = "interleaved"
    limited = "silu_clamped"
    config_type = DeepSeek4Config
    config: DeepSeek4Config

    def __init__(
        self, file: GGUFFile, config: DeepSeek4Config, backend: Backend, context_length: int
    ) -> None:
        """Load what makes one stream of several, too."""
        super().__init__(file, config, backend, context_length)
        self.streams = StreamReader(Weights(file, backend), "output_hc", config.hyper)

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add streams, what attention is made of, and limits."""
        layers, sizes = keys.num_layers(), _read_sizes(keys)
        rope = read_rope(keys, sizes.dim)
        return super().read_own(keys) | {
            **read_mixed(keys),
            **read_told_limits(keys),
            "sizes": sizes,
            "ratios": _read_ratios(keys, layers),
            "rope": RopeConfig(dimensions=rope.dimensions, base=rope.base),
            "stretched_rope": _stretched(keys, rope),
            "hashed": keys.count("hash_layer_count"),
        }

    @cached_property
    def stretched_rope(self) -> Rope:
        """What turns layers with stretches."""
        return Rope(self.config.stretched_rope)

    def layer(self, weights: Weights, index: int) -> Block:
        """Build one layer, and what it reads and writes by."""
        config = self.config
        layer = DeepSeek4Layer(
            self.mixer(weights, index),
            self.ffn(weights, index),
            *(
                MixedConnection(weights, name, config.hyper, iterations=config.iterations)
                for name in ("hc_attn", "hc_ffn")
            ),
        )
        if index < config.hashed:
            sizes = config.vocab_size, config.num_experts_per_tok, config.num_experts
            layer.table = TokenExperts(weights, *sizes)
        return layer

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention to the window, and to stretches before it."""
        config, ratio = self.config, self.config.ratios[index]
        return CompressedAttention(
            weights,
            hidden_size=config.hidden_size,
            sizes=config.sizes,
            ratio=ratio,
            rope=self.stretched_rope if ratio else self.rope,
            eps=config.rms_norm_eps,
        )

    def enter(self, tokens: Sequence[NDArray[np.int32]], chunks: Sequence[Batch]) -> list[Array]:
        """Tell the rows' tokens, which choose experts."""
        for ids, batch in zip(tokens, chunks, strict=True):
            batch.tokens = ids
        return super().enter(tokens, chunks)

    def embed(self, tokens: NDArray[np.int32]) -> Array:
        """The same in each stream: (T,) -> (T, S, E)."""
        return in_each(self.backend, super().embed(tokens), self.config.hyper.streams)

    def logits(self, hidden: Array) -> NDArray[np.float32]:
        """(T, S, E) -> (T, V)."""
        return super().logits(self.streams.read(hidden, self.streams.logits(hidden)))


def _read_sizes(keys: Keys) -> CompressedSizes:
    heads = keys.positive("attention.head_count")
    groups = keys.positive("attention.output_group_count")
    if heads % groups:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('attention.output_group_count')} is {groups}, by which "
            f"{heads} heads do not divide"
        )
    return CompressedSizes(
        heads=heads,
        dim=keys.size("attention.key_length"),
        query_rank=keys.positive("attention.q_lora_rank"),
        groups=groups,
        output_rank=keys.positive("attention.output_lora_rank"),
        window=keys.positive("attention.sliding_window"),
        index=IndexShape(
            heads=keys.positive("attention.indexer.head_count"),
            dim=keys.size("attention.indexer.key_length"),
            most=keys.positive("attention.indexer.top_k"),
            rope_style="interleaved",
        ),
    )


def _read_ratios(keys: Keys, layers: int) -> tuple[int, ...]:
    ratios = keys.per_layer("attention.compress_ratios", layers)
    if other := set(ratios) - set(_RATIOS):
        raise UnsupportedModelError(
            f"{keys.file.path}: {keys.name('attention.compress_ratios')} has {min(other)}; "
            "supported are 0, 4 and 128"
        )
    return ratios


def _stretched(keys: Keys, rope: RopeConfig) -> RopeConfig:
    """The same by a base of its own; YaRN lengthens nothing that turns."""
    base = keys.above(1, "attention.compress_rope_freq_base")
    factor = 1.0
    if rope.scaling == "yarn":
        factor = 1 / (1 + 0.1 * math.log(max(rope.factor, 1)))
    return replace(rope, base=base, attention_factor=factor)
