"""Hunyuan 4.

Source: llama.cpp, src/models/hy-v4.cpp.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, Backend
from moestream.gguf import GGUFFile
from moestream.layers.ffn import Gate
from moestream.layers.hyper import HyperConnection, HyperShape, StreamReader, in_each
from moestream.layers.indexer import IndexShape
from moestream.layers.weights import Weights
from moestream.models.blocks import Block, HyperLayer
from moestream.models.config import read_rope
from moestream.models.deepseek32 import DeepSeek32Config
from moestream.models.glm_dsa import GLMDSA
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class HyV4Config(DeepSeek32Config):
    """``hyper`` is of its streams."""

    hyper: HyperShape

    @property
    def row_size(self) -> int:
        """Of all streams."""
        return self.hyper.streams * self.hidden_size


class HyV4(GLMDSA):
    """GLM-5's layers around several residual streams, with sinks, and gates for each value."""

    gate = "values"
    sinks = True
    limited = "silu_clamped"
    config_type = HyV4Config
    config: HyV4Config

    def __init__(
        self, file: GGUFFile, config: HyV4Config, backend: Backend, context_length: int
    ) -> None:
        """Load what makes one stream of several, too."""
        super().__init__(file, config, backend, context_length)
        self.streams = StreamReader(Weights(file, backend), "output_hc", config.hyper)

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the streams' fields and experts' limits; scores do not grow with YaRN."""
        length = keys.positive("attention.key_length_mla")
        return super().read_own(keys) | {
            "rope": read_rope(keys, length),
            "attention_scale": 1 / math.sqrt(length),
            "limits": keys.per_layer_numbers("swiglu_clamp_exp", keys.num_layers(), 0.0),
            "hyper": HyperShape(
                streams=keys.size("hyper_connection.count"),
                size=keys.positive("embedding_length"),
                eps=keys.number("attention.layer_norm_rms_epsilon"),
                least=keys.number("hyper_connection.epsilon"),
                most=keys.number("hyper_connection.magnitude"),
            ),
        }

    @classmethod
    def read_index(cls, keys: Keys) -> IndexShape | None:
        """Turned at its end; some models have none."""
        if not keys.count("attention.indexer.top_k", 0):
            return None
        index = super().read_index(keys)
        eps = keys.number("attention.layer_norm_rms_epsilon")
        return index and replace(index, eps=eps, turned_last=True)

    def layer(self, weights: Weights, index: int) -> Block:
        """Build one layer, and what it reads and writes by."""
        shape = self.config.hyper
        return HyperLayer(
            self.mixer(weights, index),
            self.ffn(weights, index),
            HyperConnection(weights, "hc_attn", shape),
            HyperConnection(weights, "hc_ffn", shape),
        )

    def shared_gating(self, index: int) -> Gate:
        """Without a limit."""
        return Gate()

    def embed(self, tokens: NDArray[np.int32]) -> Array:
        """The same in each stream: (T,) -> (T, S, E)."""
        return in_each(self.backend, super().embed(tokens), self.config.hyper.streams)

    def logits(self, hidden: Array) -> NDArray[np.float32]:
        """(T, S, E) -> (T, V)."""
        return super().logits(self.streams.read(hidden, self.streams.logits(hidden)))
