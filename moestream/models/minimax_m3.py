"""MiniMax-M3, its text.

Source: llama.cpp, src/models/minimax-m3.cpp.
"""

from dataclasses import dataclass
from functools import partial

from moestream.backends import AttentionShape
from moestream.errors import ModelFormatError
from moestream.layers.batch import CHUNK_TOKENS
from moestream.layers.block_attention import BlockIndexShape, HeadBlockAttention
from moestream.layers.cache import StateShape
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.deepseek_moe import DeepSeekMoE, DeepSeekMoEConfig
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniMaxM3Config(DeepSeekMoEConfig):
    """``index`` is that of layers with experts."""

    index: BlockIndexShape

    @property
    def choice_bytes(self) -> int:
        """A byte for each head and each token of a chunk; keys, and products of heads."""
        return CHUNK_TOKENS * self.index.heads + 4 * (self.index.dim + self.index.heads)

    def attended_state(self, layer: int) -> StateShape:
        """Keys and values; behind keys, what the index goes by."""
        heads = self.kv_heads[layer]
        behind = self.index.dim // heads if layer >= self.leading_dense_layers else 0
        return AttentionShape(heads, self.head_dim + behind, self.value_dim)


class MiniMaxM3(DeepSeekMoE):
    """Layers with experts attend to blocks that each key/value head chooses; gpt-oss's gates."""

    rope_style = "half"
    qk_norm = "head"
    activation = "swiglu_oai"
    config_type = MiniMaxM3Config
    config: MiniMaxM3Config

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the index."""
        return super().read_own(keys) | {"index": _read_index(keys)}

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention to everything in leading layers, then to blocks."""
        if index < self.config.leading_dense_layers:
            return self.attention(weights, index)
        make = partial(HeadBlockAttention, index=self.config.index)
        return self.attention(weights, index, make=make)


def _read_index(keys: Keys) -> BlockIndexShape:
    """Blocks that are chosen are counted in the file.

    Raises:
        ModelFormatError: heads of the index are not those of keys, or do not divide its numbers.
    """
    size = keys.positive("attention.indexer.block_size")
    shape = BlockIndexShape(
        heads=keys.positive("attention.indexer.head_count"),
        dim=keys.size("attention.indexer.key_length"),
        most=size * keys.positive("attention.indexer.top_k"),
        size=size,
        local=keys.count("attention.indexer.local_blocks"),
    )
    heads = keys.positive("attention.head_count_kv")
    if shape.heads != heads or shape.dim % heads:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('attention.indexer.head_count')} is {shape.heads} and "
            f"its keys have {shape.dim} numbers, expected {heads} heads, one for each of keys and "
            "values, which divide them"
        )
    return shape
