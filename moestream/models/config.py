"""A model's dimensions, read from GGUF metadata.

A key that is missing gets the default that llama.cpp gives it. A value that llama.cpp acts upon in
an architecture and we do not is an error that names the key; keys that it has no use for in it
(``expert_weights_scale``, sliding windows, YaRN's constants in the plain ones) are not read either.

An architecture with keys of its own derives from ``ModelConfig``.

Source: llama.cpp, src/llama-model.cpp (``load_hparams``) and src/models/*.cpp.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, Self, cast

from moestream.backends import AttentionShape
from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.layers.cache import FORGETS, RecurrentShape, StateShape
from moestream.layers.rope import RopeConfig
from moestream.models.keys import Keys, Supported

SUPPORTED: Supported = {
    "attention.causal": ((True,), "True: attention to what came before"),
    "expert_group_count": ((0, 1), "0 or 1: all experts in one group"),
    # llama.cpp takes the softmax whatever this says. Who wrote otherwise would not get the model
    # that was trained.
    "expert_gating_func": ((0, 1), "0 or 1: softmax"),
    "nextn_predict_layers": ((0,), "0: no layers that predict further tokens"),
}
"""Of an architecture that does not say otherwise."""


class Recurrence(Protocol):
    """Sizes of a recurrent layer."""

    def state(self) -> StateShape:
        """What it keeps of the tokens it has seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Dimensions common to all architectures. Sizes of what a model lacks are 0."""

    architecture: str
    vocab_size: int
    context_length: int
    num_layers: int
    hidden_size: int
    num_heads: int
    kv_heads: tuple[int, ...]
    """Key and value heads of each layer; 0 where a layer does not attend."""
    head_dim: int
    value_dim: int
    intermediate_sizes: tuple[int, ...]
    """Width of each layer's dense network."""
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_intermediate_size: int
    leading_dense_layers: int
    rms_norm_eps: float
    centred: bool = False
    """Whether norms take the mean first."""
    rope: RopeConfig
    window: int = 0
    """Positions that ``windowed`` layers see, which may be turned in a way of their own."""
    windowed: tuple[bool, ...] = ()
    windowed_rope: RopeConfig | None = None
    recurrent: Recurrence | None = None
    """What layers without key/value heads are, in architectures that have such."""
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    """What scores are multiplied by; None for the head's width to the power of -0.5."""
    attention_cap: float = 0.0
    """What scores come near to and never reach; 0 for none."""
    attention_clamp: float = 0.0
    """What queries, keys and values stay within; 0 for none."""
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_cap: float = 0.0
    part: range | None = None
    """Layers that are loaded here, where other machines have the others; None for all."""

    @classmethod
    def read(cls, keys: Keys, **own: object) -> Self:
        """Read the common dimensions; ``own`` are those that a derived class adds or replaces.

        Raises:
            ModelFormatError: a key is missing, of a wrong type, or makes no sense.
            UnsupportedModelError: a value asks for what we lack.
        """
        hidden_size = keys.positive("embedding_length")
        num_heads = cast(int, own.get("num_heads", 0)) or keys.positive("attention.head_count")
        num_layers = keys.num_layers()
        head_dim = keys.count("attention.key_length", hidden_size // num_heads)
        values: dict[str, object] = {
            "architecture": keys.architecture,
            "vocab_size": keys.vocab_size(),
            "context_length": keys.positive("context_length"),
            "num_layers": num_layers,
            "hidden_size": hidden_size,
            "num_heads": num_heads,
            "kv_heads": keys.per_layer("attention.head_count_kv", num_layers, num_heads),
            "head_dim": head_dim,
            "value_dim": keys.count("attention.value_length", head_dim),
            "intermediate_sizes": keys.per_layer("feed_forward_length", num_layers, 0),
            "num_experts": keys.count("expert_count", 0),
            "num_experts_per_tok": keys.count("expert_used_count", 0),
            "moe_intermediate_size": keys.count("expert_feed_forward_length", 0),
            "shared_intermediate_size": keys.count("expert_shared_feed_forward_length", 0),
            "leading_dense_layers": 0,
        }
        values |= own
        if "rms_norm_eps" not in values:
            values["rms_norm_eps"] = keys.number("attention.layer_norm_rms_epsilon")
        if "rope" not in values:
            values["rope"] = read_rope(keys, head_dim)
        config = cls(**values)  # type: ignore[arg-type]
        _check(config, keys)
        return config

    @property
    def row_size(self) -> int:
        """Numbers a token has between layers."""
        return self.hidden_size

    @property
    def has_ends(self) -> bool:
        """Whether the embedding and the output are loaded here."""
        return self.part is None or self.part.start == 0

    def has_layer(self, index: int) -> bool:
        """Whether a layer is loaded here."""
        return self.part is None or index in self.part

    def may_begin(self, layer: int) -> bool:
        """Whether a layer needs nothing of those before it but the stream."""
        return True

    @property
    def choice_bytes(self) -> int:
        """What a layer takes for a moment to choose what is attended to, a position seen."""
        return 0

    def state_shapes(self) -> tuple[StateShape, ...]:
        """What each layer keeps of the tokens it has seen."""
        return tuple(
            self.attended_state(layer) if heads else self.recurrent_state(layer)
            for layer, heads in enumerate(self.kv_heads)
        )

    def attended_state(self, layer: int) -> StateShape:
        """Of a layer that attends."""
        return AttentionShape(self.kv_heads[layer], self.head_dim, self.value_dim)

    def recurrent_state(self, layer: int) -> StateShape:
        """Of a layer without key/value heads, where an architecture has any."""
        return self.attended_state(layer) if self.recurrent is None else self.recurrent.state()

    def sees_window(self, layer: int) -> bool:
        """Whether a layer sees the last ``window`` positions alone."""
        return bool(self.windowed) and self.windowed[layer]

    def shapes_here(self) -> tuple[StateShape, ...]:
        """The same, with nothing kept of the layers that are not loaded here.

        Those after the first part's have the first of them remember, in no memory, at which
        lengths recurrent ones can be taken back to.
        """
        shapes = self.state_shapes()
        if self.part is None:
            return shapes
        here = [s if i in self.part else FORGETS for i, s in enumerate(shapes)]
        after = shapes[self.part.stop :]
        if self.has_ends and any(isinstance(s, RecurrentShape) and s.arrays for s in after):
            here[self.part.stop] = RecurrentShape(((0,),))
        return tuple(here)


def read_rope(keys: Keys, head_dim: int) -> RopeConfig:
    """What the metadata says of rotary embedding, for heads of ``head_dim``."""
    # Older files give a linear factor under ``rope.scale_linear`` and no type.
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 0.0))
    scaling = keys.text("rope.scaling.type", "linear" if factor else "none")
    if scaling not in ("none", "linear", "yarn"):
        raise UnsupportedModelError(
            f"{keys.file.path}: {keys.name('rope.scaling.type')} is {scaling!r}; "
            "supported are none, linear and yarn"
        )
    return RopeConfig(
        dimensions=read_turned(keys, "rope.dimension_count", head_dim, head_dim),
        base=keys.above(1, "rope.freq_base", 10000.0),
        scaling=cast(Literal["none", "linear", "yarn"], scaling),
        factor=factor or 1.0,
        original_context=keys.positive(
            "rope.scaling.original_context_length", keys.count("context_length")
        ),
        attention_factor=keys.number("rope.scaling.attn_factor", 1.0),
    )


def read_turned(keys: Keys, key: str, default: int, head_dim: int) -> int:
    """How many of a head's coordinates are turned to their position."""
    dimensions = keys.count(key, default)
    if dimensions == 0 or dimensions % 2 or dimensions > head_dim:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name(key)} is {dimensions}, expected an even number from 2 "
            f"to the head's {head_dim}"
        )
    return dimensions


def _check(config: ModelConfig, keys: Keys) -> None:
    file = keys.file
    width = config.num_heads * max(config.head_dim, config.value_dim)
    keys.require_size("the width of all attention heads", width)
    for heads in set(config.kv_heads):
        if heads and config.num_heads % heads:
            raise ModelFormatError(
                f"{file.path}: {config.num_heads} attention heads do not divide among "
                f"{heads} key/value heads"
            )
    if not any(config.kv_heads):
        raise ModelFormatError(f"{file.path}: no layer has key/value heads")
    if config.num_experts and not 1 <= config.num_experts_per_tok <= config.num_experts:
        raise ModelFormatError(
            f"{file.path}: {config.num_experts_per_tok} experts a token are asked of "
            f"{config.num_experts} experts"
        )
