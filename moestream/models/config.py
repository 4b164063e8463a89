"""A model's dimensions, read from GGUF metadata.

A key that is missing gets the default that llama.cpp gives it. A value that llama.cpp acts upon in
our architectures and we do not is an error that names the key; keys that it has no use for in them
(``expert_weights_scale``, sliding windows, YaRN's constants) are not read here either.

Source: llama.cpp, src/llama-model.cpp (``load_hparams``) and src/models/*.cpp.
"""

import math
from dataclasses import dataclass
from typing import Literal, cast

from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.gguf import GGUFHeader
from moestream.layers.rope import RopeConfig

_SUPPORTED: dict[str, tuple[tuple[int, ...], str]] = {
    "attention.causal": ((True,), "True: attention to what came before"),
    "expert_group_count": ((0, 1), "0 or 1: all experts in one group"),
    # llama.cpp takes the softmax whatever this says. Who wrote otherwise would not get the model
    # that was trained.
    "expert_gating_func": ((0, 1), "0 or 1: softmax"),
    "nextn_predict_layers": ((0,), "0: no layers that predict further tokens"),
}
"""Keys with the only values that we have the arithmetic for, the first being the default."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Dimensions common to all architectures. Sizes of what a model lacks are 0."""

    architecture: str
    vocab_size: int
    context_length: int
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_intermediate_size: int
    rms_norm_eps: float
    rope: RopeConfig

    @classmethod
    def from_gguf(cls, file: GGUFHeader) -> "ModelConfig":
        """Read the dimensions.

        Raises:
            ModelFormatError: a key is missing, of a wrong type, or makes no sense.
            UnsupportedModelError: a value asks for what we lack.
        """
        keys = _Keys(file)
        for key, (values, meaning) in _SUPPORTED.items():
            keys.require(key, values, meaning)
        hidden_size = keys.positive("embedding_length")
        num_heads = keys.positive("attention.head_count")
        head_dim = keys.count("attention.key_length", hidden_size // num_heads)
        if keys.count("attention.value_length", head_dim) != head_dim:
            raise UnsupportedModelError(
                f"{file.path}: keys and values of different length are not supported "
                f"({keys.name('attention.value_length')})"
            )
        intermediate = keys.count("feed_forward_length", 0)
        num_experts = keys.count("expert_count", 0)
        per_token = keys.count("expert_used_count", 0)
        config = cls(
            architecture=keys.architecture,
            vocab_size=keys.vocab_size(),
            context_length=keys.positive("context_length"),
            num_layers=keys.positive("block_count"),
            hidden_size=hidden_size,
            num_heads=num_heads,
            num_kv_heads=keys.count("attention.head_count_kv", num_heads),
            head_dim=head_dim,
            intermediate_size=intermediate,
            num_experts=num_experts,
            num_experts_per_tok=per_token,
            moe_intermediate_size=keys.count("expert_feed_forward_length", 0),
            shared_intermediate_size=keys.count("expert_shared_feed_forward_length", 0),
            rms_norm_eps=keys.number("attention.layer_norm_rms_epsilon"),
            rope=_rope(keys, head_dim),
        )
        _check(config, file)
        return config


class _Keys:
    """Typed access to ``<architecture>.<key>``."""

    def __init__(self, file: GGUFHeader) -> None:
        self.file = file
        self.architecture = file.get("general.architecture", str)

    def name(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def count(self, key: str, default: int | None = None) -> int:
        name = self.name(key)
        if isinstance(self.file.metadata.get(name), list):
            raise UnsupportedModelError(
                f"{self.file.path}: {name} differs from layer to layer, which "
                f"{self.architecture} does not support here"
            )
        value = self.file.get(name, int) if default is None else self.file.get(name, int, default)
        if value < 0:
            raise ModelFormatError(f"{self.file.path}: {name} is {value}, expected a count")
        return value

    def positive(self, key: str, default: int | None = None) -> int:
        value = self.count(key, default)
        if value == 0:
            raise ModelFormatError(f"{self.file.path}: {self.name(key)} is 0, expected at least 1")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        name = self.name(key)
        value = (
            self.file.get(name, float) if default is None else self.file.get(name, float, default)
        )
        if not math.isfinite(value) or value < 0:
            raise ModelFormatError(
                f"{self.file.path}: {name} is {value}, expected a finite number of at least 0"
            )
        return value

    def require(self, key: str, values: tuple[int, ...], meaning: str) -> None:
        value = self.file.get(self.name(key), type(values[0]), values[0])
        if value not in values:
            raise UnsupportedModelError(
                f"{self.file.path}: {self.name(key)} is {value}; supported is {meaning}; choose "
                "another model, or a conversion of this one that does without"
            )

    def text(self, key: str, default: str) -> str:
        return self.file.get(self.name(key), str, default)

    def above(self, limit: int, key: str, default: float) -> float:
        value = self.number(key, default)
        if value <= limit:
            raise ModelFormatError(
                f"{self.file.path}: {self.name(key)} is {value}, expected more than {limit}"
            )
        return value

    def vocab_size(self) -> int:
        """Rows of the embedding, one a token where the file has a vocabulary at all."""
        rows = self.file.tensor_info("token_embd.weight").shape[0]
        tokens = len(self.file.get("tokenizer.ggml.tokens", list, ()))
        if tokens not in (0, rows):
            raise ModelFormatError(
                f"{self.file.path}: tensor 'token_embd.weight' has {rows} rows, but the "
                f"vocabulary has {tokens} tokens"
            )
        return rows


def _rope(keys: _Keys, head_dim: int) -> RopeConfig:
    # Older files give a linear factor under ``rope.scale_linear`` and no type.
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 0.0))
    scaling = keys.text("rope.scaling.type", "linear" if factor else "none")
    if scaling not in ("none", "linear", "yarn"):
        raise UnsupportedModelError(
            f"{keys.file.path}: {keys.name('rope.scaling.type')} is {scaling!r}; "
            "supported are none, linear and yarn"
        )
    dimensions = keys.count("rope.dimension_count", head_dim)
    if dimensions == 0 or dimensions % 2 or dimensions > head_dim:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('rope.dimension_count')} is {dimensions}, expected an "
            f"even number from 2 to the head's {head_dim}"
        )
    return RopeConfig(
        dimensions=dimensions,
        base=keys.above(1, "rope.freq_base", 10000.0),
        scaling=cast(Literal["none", "linear", "yarn"], scaling),
        factor=factor or 1.0,
        original_context=keys.positive(
            "rope.scaling.original_context_length", keys.count("context_length")
        ),
        attention_factor=keys.number("rope.scaling.attn_factor", 1.0),
    )


def _check(config: ModelConfig, file: GGUFHeader) -> None:
    if config.num_kv_heads == 0 or config.num_heads % config.num_kv_heads:
        raise ModelFormatError(
            f"{file.path}: {config.num_heads} attention heads do not divide among "
            f"{config.num_kv_heads} key/value heads"
        )
    if config.num_experts and not 1 <= config.num_experts_per_tok <= config.num_experts:
        raise ModelFormatError(
            f"{file.path}: {config.num_experts_per_tok} experts a token are asked of "
            f"{config.num_experts} experts"
        )
