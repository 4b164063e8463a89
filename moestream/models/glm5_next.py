"""GLM-5.3 Flash.

Source: llama.cpp, src/models/glm5-next.cpp.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, AttentionShape
from moestream.errors import ModelFormatError
from moestream.layers.cache import StateShape
from moestream.layers.ffn import Gate
from moestream.layers.hyper import HyperShape
from moestream.layers.kimi_delta import KimiDelta, KimiDeltaShape
from moestream.layers.mixed_streams import MixedConnection
from moestream.layers.mla import LatentAttention, LatentSizes
from moestream.layers.pooled_indexer import PooledIndexer, PooledIndexShape
from moestream.layers.rope import RopeConfig
from moestream.layers.weights import Weights
from moestream.models.blocks import Block, HyperLayer, Mixer
from moestream.models.deepseek_moe import read_mixture
from moestream.models.keys import Keys
from moestream.models.kimi_linear import KimiLinear, KimiLinearConfig

_UNIT_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class GLM5NextConfig(KimiLinearConfig):
    """``indexed`` layers have an ``index`` of their own; others go by the last before them.

    Streams are mixed by ``iterations``. Limits are of inner values, by layer, 0 for none: of
    experts, and of other networks.
    """

    index: PooledIndexShape
    indexed: tuple[bool, ...]
    hyper: HyperShape
    iterations: int
    limits: tuple[float, ...]
    shared_limits: tuple[float, ...]

    @property
    def row_size(self) -> int:
        """Of all streams."""
        return self.hyper.streams * self.hidden_size

    def state_shapes(self) -> tuple[StateShape, ...]:
        """Behind a latent, what the index goes by: a key and its gate."""
        return tuple(
            replace(shape, key_dim=shape.key_dim + 2 * self.index.dim)
            if isinstance(shape, AttentionShape) and own
            else shape
            for shape, own in zip(KimiLinearConfig.state_shapes(self), self.indexed, strict=True)
        )


class GLM5Next(KimiLinear):
    """Kimi Linear with bounded decays around mixed streams, which attends to chosen blocks."""

    supported = KimiLinear.supported | {
        "rope.dimension_count": ((0,), "0: nothing is turned"),
        "attention.indexer.kpool_select_tail": ((True,), "True: the last block is always seen"),
    }
    normalise = None
    config: GLM5NextConfig

    @classmethod
    def read_config(cls, keys: Keys) -> GLM5NextConfig:
        """Add the index, streams and limits."""
        keys.require(cls.supported)
        layers = keys.num_layers()
        limits = keys.per_layer_numbers("swiglu_clamp_exp", layers, 0.0)
        shared = "swiglu_clamp_shexp"
        told = keys.name(shared) in keys.file.metadata
        return GLM5NextConfig.read(
            keys,
            delta=cls.read_delta(keys),
            index=_read_index(keys),
            indexed=_read_indexed(keys, layers),
            hyper=HyperShape(
                streams=keys.size("hyper_connection.count"),
                size=keys.positive("embedding_length"),
                eps=keys.number("attention.layer_norm_rms_epsilon"),
                least=keys.number("hyper_connection.epsilon"),
                most=2.0,
            ),
            iterations=keys.positive("hyper_connection.sinkhorn_iterations"),
            limits=limits,
            shared_limits=keys.per_layer_numbers(shared, layers) if told else limits,
            **_read_latent(keys),
            **read_mixture(keys),
        )

    @classmethod
    def read_delta(cls, keys: Keys) -> KimiDeltaShape:
        """The same, bounded where the file says."""
        name = keys.name("kda.gate_lower_bound")
        bound = keys.file.get(name, float, 0.0)
        if not -1e3 < bound <= 0:
            raise ModelFormatError(f"{keys.file.path}: {name} is {bound}, expected less than 0")
        return replace(super().read_delta(keys), bound=bound, falling=True, unit_eps=_UNIT_EPS)

    def layer(self, weights: Weights, index: int) -> Block:
        """Build one layer, and what it reads and writes by."""
        shape, turns = self.config.hyper, self.config.iterations
        return HyperLayer(
            self.mixer(weights, index),
            self.ffn(weights, index),
            MixedConnection(weights, "hc_attn", shape, iterations=turns),
            MixedConnection(weights, "hc_ffn", shape, iterations=turns),
        )

    def mixer(self, weights: Weights, index: int) -> Mixer:  # type: ignore[override]
        """Latent attention to what an index chooses, where a layer has key/value heads."""
        config = self.config
        hidden, eps = config.hidden_size, config.rms_norm_eps
        if not config.kv_heads[index]:
            return KimiDelta(weights, hidden_size=hidden, shape=config.delta, eps=eps)
        return LatentAttention(
            weights,
            hidden_size=hidden,
            num_heads=config.num_heads,
            sizes=LatentSizes(config.latent, config.head_dim, 0, config.value_dim),
            query_rank=config.query_rank,
            eps=eps,
            rope=None,
            rope_style=self.rope_style,
            scale=config.scale,
            index=config.index,
            own_index=config.indexed[index],
            indexer=PooledIndexer,
        )

    def gating(self, index: int) -> Gate:
        """Gate and what it scales are bounded before the one passes."""
        return _bounded(self.config.limits[index])

    def shared_gating(self, index: int) -> Gate:
        """The same, with a limit of their own."""
        return _bounded(self.config.shared_limits[index])

    def embed(self, tokens: NDArray[np.int32]) -> Array:
        """The same in each stream: (T,) -> (T, S, E)."""
        each = self.backend.zeros((1, self.config.hyper.streams, 1))
        return super().embed(tokens)[:, None] + each

    def logits(self, hidden: Array) -> NDArray[np.float32]:
        """Of the streams' mean: (T, S, E) -> (T, V)."""
        count = self.config.hyper.streams
        total = hidden[:, 0]
        for i in range(1, count):
            total = total + hidden[:, i]
        return super().logits(total * (1 / count))


def _bounded(limit: float) -> Gate:
    return Gate("silu_clamped", limit) if limit else Gate()


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
        eps=keys.number("attention.layer_norm_epsilon", 0.0),
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


def _read_latent(keys: Keys) -> dict[str, object]:
    """Fields of latent attention of which nothing is turned."""
    length = keys.positive("attention.key_length_mla")
    return {
        "head_dim": length,
        "value_dim": keys.positive("attention.value_length_mla"),
        "rope": RopeConfig(dimensions=0, base=10000.0),
        "query_rank": keys.positive("attention.q_lora_rank"),
        "latent": keys.positive("attention.kv_lora_rank"),
        "scale": 1 / math.sqrt(length),
        "temperature": None,
    }
