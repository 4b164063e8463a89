"""DeepSeek-V3.2: sparse attention with a lightning indexer.

Source: DeepSeek-V3.2-Exp (DeepSeek-AI, 2025); llama.cpp, src/models/deepseek32.cpp.
"""

from dataclasses import dataclass
from typing import ClassVar

from moestream.backends import AttentionShape, RopeStyle
from moestream.layers.cache import StateShape
from moestream.layers.indexer import IndexShape
from moestream.layers.mla import LatentAttention, LatentSizes
from moestream.layers.weights import Weights
from moestream.models.deepseek2 import DeepSeek2, DeepSeek2Config, read_latent
from moestream.models.deepseek_moe import read_mixture
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSeek32Config(DeepSeek2Config):
    """``indexed`` layers have an ``index`` of their own; the others go by the last before them.

    Without an ``index``, all positions are attended to.
    """

    index: IndexShape | None
    indexed: tuple[bool, ...]

    def may_begin(self, layer: int) -> bool:
        """Not one that goes by another's index."""
        return self.index is None or self.indexed[layer]

    def state_shapes(self) -> tuple[StateShape, ...]:
        """Latents, and behind them what the index goes by."""
        latent = self.latent + self.rope.dimensions
        behind = self.index.dim if self.index else 0
        dims = (latent + behind if own else latent for own in self.indexed)
        return tuple(AttentionShape(1, dim, 0) for dim in dims)


class DeepSeek32(DeepSeek2):
    """DeepSeek-V3 whose layers attend to the positions that an indexer chooses."""

    index_rope_style: ClassVar[RopeStyle] = "half"
    sinks: ClassVar[bool] = False
    config: DeepSeek32Config

    @classmethod
    def read_config(cls, keys: Keys) -> DeepSeek32Config:
        """Add the indexer's keys."""
        keys.require(cls.supported)
        return DeepSeek32Config.read(
            keys,
            index=cls.read_index(keys),
            indexed=cls.read_indexed(keys),
            **read_latent(keys),
            **read_mixture(keys),
        )

    @classmethod
    def read_index(cls, keys: Keys) -> IndexShape | None:
        """The indexer's sizes."""
        return IndexShape(
            heads=keys.positive("attention.indexer.head_count"),
            dim=keys.size("attention.indexer.key_length"),
            most=keys.positive("attention.indexer.top_k"),
            rope_style=cls.index_rope_style,
        )

    @classmethod
    def read_indexed(cls, keys: Keys) -> tuple[bool, ...]:
        """Which layers have an indexer: all."""
        return (True,) * keys.num_layers()

    def mixer(self, weights: Weights, index: int) -> LatentAttention:
        """Latent attention with an indexer, its own or the last one before."""
        config = self.config
        turned = config.rope.dimensions
        return LatentAttention(
            weights,
            hidden_size=config.hidden_size,
            num_heads=config.num_heads,
            sizes=LatentSizes(config.latent, config.head_dim - turned, turned, config.value_dim),
            query_rank=config.query_rank,
            eps=config.rms_norm_eps,
            rope=self.rope,
            rope_style=self.rope_style,
            scale=config.scale,
            gate=self.gate,
            sinks=self.sinks,
            index=config.index,
            own_index=config.indexed[index],
        )
