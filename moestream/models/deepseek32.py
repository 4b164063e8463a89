"""DeepSeek-V3.2: sparse attention with a lightning indexer.

Source: DeepSeek-V3.2-Exp (DeepSeek-AI, 2025); llama.cpp, src/models/deepseek32.cpp.
"""

from dataclasses import dataclass
from typing import ClassVar

from moestream.backends import AttentionShape, RopeStyle
from moestream.layers.batch import CHUNK_TOKENS
from moestream.layers.cache import StateShape
from moestream.layers.indexer import IndexShape
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.config import ModelConfig
from moestream.models.keys import Keys
from moestream.models.latent_moe import LatentConfig, LatentMoE


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSeek32Config(LatentConfig):
    """``indexed`` layers have an ``index`` of their own; the others go by the last before them.

    Without an ``index``, all positions are attended to.
    """

    index: IndexShape | None
    indexed: tuple[bool, ...]

    def may_begin(self, layer: int) -> bool:
        """Not one that goes by another's index."""
        return self.index is None or self.indexed[layer]

    @property
    def choice_bytes(self) -> int:
        """A byte for each token of a chunk; keys, what is made of them, products and scores."""
        index = self.index
        return CHUNK_TOKENS + 4 * (2 * index.kept + index.heads + 4) if index else 0

    def attended_state(self, layer: int) -> StateShape:
        """Latents, and behind them what the index goes by."""
        behind = self.index.kept if self.index and self.indexed[layer] else 0
        return AttentionShape(1, self.latent + self.rope.dimensions + behind, 0)


class DeepSeek32(LatentMoE):
    """DeepSeek-V3 whose layers attend to the positions that an indexer chooses."""

    index_rope_style: ClassVar[RopeStyle] = "half"
    config_type: ClassVar[type[ModelConfig]] = DeepSeek32Config
    config: DeepSeek32Config

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the indexer's fields; queries do not grow with their position."""
        return super().read_own(keys) | {
            "temperature": None,
            "index": cls.read_index(keys),
            "indexed": cls.read_indexed(keys),
        }

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

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Latent attention with an indexer, its own or the last one before."""
        shape, own = self.config.index, self.config.indexed[index]
        return self.latent_attention(weights, index, index=shape, own_index=own)
