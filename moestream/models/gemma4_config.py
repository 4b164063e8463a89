"""Gemma 4's dimensions, and which of its layers keep keys and values."""

import math
from dataclasses import dataclass

from moestream.backends import AttentionShape
from moestream.errors import ModelFormatError
from moestream.layers.cache import FORGETS, StateShape
from moestream.layers.rope import RopeConfig
from moestream.models.config import ModelConfig, read_rope, read_turned
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma4Config(ModelConfig):
    """``head_dim`` and ``rope`` are those of layers that see everything."""

    sliding: tuple[bool, ...]
    """Which layers see no more than ``window`` positions."""
    window: int
    attention_scale: float
    sliding_head_dim: int
    sliding_rope: RopeConfig
    per_layer: int
    """Numbers that each layer is given for a token, 0 for none."""
    own_kv_layers: int
    """Those after attend to keys and values of the last before of their kind."""

    def lender(self, layer: int) -> int:
        """Whose keys and values a layer attends to."""
        if layer < self.own_kv_layers:
            return layer
        own = range(self.own_kv_layers - 1, -1, -1)
        return next(i for i in own if self.sliding[i] == self.sliding[layer])

    def head_dim_of(self, layer: int) -> int:
        """D in this layer."""
        return self.sliding_head_dim if self.sliding[layer] else self.head_dim

    def may_begin(self, layer: int) -> bool:
        """Only the first, where layers are given of tokens, or one before lends to one after."""
        lent = range(max(layer, self.own_kv_layers), self.num_layers)
        return layer == 0 or not (self.per_layer or any(self.lender(i) < layer for i in lent))

    def attended_state(self, layer: int) -> StateShape:
        """Keys and values as long as the layer's heads, where it has its own."""
        dim = self.head_dim_of(layer)
        own = layer < self.own_kv_layers
        return AttentionShape(self.kv_heads[layer], dim, dim) if own else FORGETS


def read_gemma4(keys: Keys) -> dict[str, object]:
    """Fields of the sliding layers, factors that all files share, and what E2B and E4B have.

    Raises:
        ModelFormatError: a key is missing, of a wrong type, or makes no sense.
    """
    head_dim, sliding_dim = (_head_dim(keys, suffix) for suffix in ("", "_swa"))
    rope = read_rope(keys, head_dim)
    turned = read_turned(keys, "rope.dimension_count_swa", rope.dimensions, sliding_dim)
    sliding = keys.marked_layers("attention.sliding_window_pattern", keys.num_layers())
    return {
        "rope": rope,
        "sliding": sliding,
        "window": keys.positive("attention.sliding_window"),
        "sliding_head_dim": sliding_dim,
        "sliding_rope": RopeConfig(turned, keys.above(1, "rope.freq_base_swa", 10000.0)),
        "embedding_scale": math.sqrt(keys.positive("embedding_length")),
        "attention_scale": 1.0,
        "logit_cap": keys.number("final_logit_softcapping", 30.0),
        "per_layer": keys.count("embedding_length_per_layer_input", 0),
        "own_kv_layers": _own_kv_layers(keys, sliding),
    }


def _own_kv_layers(keys: Keys, sliding: tuple[bool, ...]) -> int:
    """How many layers have keys and values, of which each kind must have one."""
    key, layers = "attention.shared_kv_layers", len(sliding)
    own = layers - keys.count(key, 0)
    if own < 1 or not set(sliding[own:]) <= set(sliding[:own]):
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name(key)} is {keys.count(key, 0)} of {layers} layers, "
            "which leaves no earlier layer of some kind to attend to"
        )
    return own


def _head_dim(keys: Keys, suffix: str) -> int:
    """Width of a head's keys and values, which must be of one."""
    key, value = (keys.size(f"attention.{part}_length{suffix}") for part in ("key", "value"))
    if key != value:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name(f'attention.value_length{suffix}')} is {value}, "
            f"expected the {key} of {keys.name(f'attention.key_length{suffix}')}"
        )
    return key
