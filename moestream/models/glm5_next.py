"""GLM-5.3 Flash.

Source: llama.cpp, src/models/glm5-next.cpp.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.errors import ModelFormatError
from moestream.layers.hyper import HyperShape, in_each
from moestream.layers.kimi_delta import KimiDeltaShape
from moestream.layers.mixed_streams import MixedConnection
from moestream.layers.pooled_indexer import PooledIndexer, PooledIndexShape
from moestream.layers.rope import RopeConfig
from moestream.layers.weights import Weights
from moestream.models.blocks import Block, HyperLayer
from moestream.models.deepseek32 import DeepSeek32, DeepSeek32Config
from moestream.models.deepseek_moe import read_told_limits
from moestream.models.keys import Keys
from moestream.models.kimi_linear import KimiLinear, read_bounded
from moestream.models.mixed_keys import MixedRows, read_mixed

_UNIT_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class GLM5NextConfig(MixedRows, DeepSeek32Config):
    """Layers that do not attend are delta rules. Streams are mixed by ``iterations``."""

    hyper: HyperShape
    iterations: int
    recurrent: KimiDeltaShape

    def may_begin(self, layer: int) -> bool:
        """Where the next layer that attends has an index of its own."""
        after = zip(self.kv_heads[layer:], self.indexed[layer:], strict=True)
        return next((own for heads, own in after if heads), True)


class GLM5Next(KimiLinear, DeepSeek32):
    """Kimi Linear with bounded decays around mixed streams, which attends to chosen blocks."""

    supported = KimiLinear.supported | {
        "rope.dimension_count": ((0,), "0: nothing is turned"),
        "attention.indexer.kpool_select_tail": ((True,), "True: the last block is always seen"),
    }
    normalise = None
    limited = "silu_clamped"
    indexer = PooledIndexer
    config_type = GLM5NextConfig
    config: GLM5NextConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add streams and limits."""
        return super().read_own(keys) | {
            **read_mixed(keys),
            **read_told_limits(keys),
        }

    @classmethod
    def read_latent(cls, keys: Keys) -> dict[str, object]:
        """Nothing is turned."""
        length = keys.positive("attention.key_length_mla")
        return {
            "head_dim": length,
            "value_dim": keys.positive("attention.value_length_mla"),
            "rope": RopeConfig(dimensions=0, base=10000.0),
            "query_rank": keys.positive("attention.q_lora_rank"),
            "latent": keys.positive("attention.kv_lora_rank"),
            "attention_scale": 1 / math.sqrt(length),
            "temperature": None,
        }

    @classmethod
    def read_index(cls, keys: Keys) -> PooledIndexShape:
        """An index of whole blocks."""
        return _read_index(keys)

    @classmethod
    def read_indexed(cls, keys: Keys) -> tuple[bool, ...]:
        """As the file says; all where it does not."""
        return _read_indexed(keys, keys.num_layers())

    @classmethod
    def read_delta(cls, keys: Keys) -> KimiDeltaShape:
        """The same, bounded where the file says."""
        return replace(read_bounded(keys, super().read_delta(keys)), unit_eps=_UNIT_EPS)

    def layer(self, weights: Weights, index: int) -> Block:
        """Build one layer, and what it reads and writes by."""
        shape, turns = self.config.hyper, self.config.iterations
        return HyperLayer(
            self.mixer(weights, index),
            self.ffn(weights, index),
            MixedConnection(weights, "hc_attn", shape, iterations=turns),
            MixedConnection(weights, "hc_ffn", shape, iterations=turns),
        )

    def embed(self, tokens: NDArray[np.int32]) -> Array:
        """The same in each stream: (T,) -> (T, S, E)."""
        return in_each(self.backend, super().embed(tokens), self.config.hyper.streams)

    def logits(self, hidden: Array) -> NDArray[np.float32]:
        """Of the streams' mean: (T, S, E) -> (T, V)."""
        count = self.config.hyper.streams
        total = hidden[:, 0]
        for i in range(1, count):
            total = total + hidden[:, i]
        return super().logits(total * (1 / count))


def _read_index(keys: Keys) -> PooledIndexShape:
    size, most = (keys.positive(f"attention.indexer.{name}") for name in ("kpool", "top_k"))
    if most % size:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('attention.indexer.top_k')} is {most}, expected whole "
            f"blocks of {size}"
        )
    return PooledIndexShape(
        heads=keys.positive("attention.indexer.head_count"),
        dim=keys.size("attention.indexer.key_length"),
        most=most,
        rope_style="half",
        eps=keys.number("attention.layer_norm_epsilon", 1e-6),
        size=size,
    )


def _read_indexed(keys: Keys, layers: int) -> tuple[bool, ...]:
    """Which layers have an index of their own; the first that attends must."""
    key = "attention.indexer.types"
    indexed = tuple(map(bool, keys.per_layer(key, layers, 1)))
    heads = keys.per_layer("attention.head_count_kv", layers)
    attending = [own for own, count in zip(indexed, heads, strict=True) if count]
    if attending and not attending[0]:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name(key)} gives the first layer that attends no indexer, "
            "and there is none before it"
        )
    return indexed
