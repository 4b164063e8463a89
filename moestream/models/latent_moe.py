"""DeepSeek's kind of mixture behind latent attention.

Owns the latents' sizes and the factor of scores. What chooses positions, and layers of another
kind, are told by the architectures.

Source: arXiv 2405.04434, 2412.19437; llama.cpp, src/models/deepseek2.cpp, src/llama-context.cpp.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from moestream.backends import AttentionShape
from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.layers.attention import Temperature
from moestream.layers.cache import StateShape
from moestream.layers.indexer import Indexer, IndexShape
from moestream.layers.mla import LatentAttention, LatentGate, LatentSizes
from moestream.layers.rope import RopeConfig
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.config import ModelConfig, read_rope
from moestream.models.deepseek_moe import DeepSeekMoE, DeepSeekMoEConfig
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentConfig(DeepSeekMoEConfig):
    """``query_rank`` 0: queries are projected at once."""

    query_rank: int
    latent: int
    attention_scale: float
    temperature: Temperature | None

    @property
    def sizes(self) -> LatentSizes:
        """Of a head, and of what is kept of a position."""
        turned = self.rope.dimensions
        return LatentSizes(self.latent, self.head_dim - turned, turned, self.value_dim)

    def attended_state(self, layer: int) -> StateShape:
        """One latent and one turned key a position, of which the latent is the value too."""
        return AttentionShape(1, self.latent + self.rope.dimensions, 0)


class LatentMoE(DeepSeekMoE):
    """What architectures differ in is said in class attributes; see ``LatentConfig``."""

    rope_style = "interleaved"
    gate: ClassVar[LatentGate] = "none"
    sinks: ClassVar[bool] = False
    indexer: ClassVar[type[Indexer]] = Indexer
    config_type: ClassVar[type[ModelConfig]] = LatentConfig
    config: LatentConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the latent's fields."""
        return super().read_own(keys) | cls.read_latent(keys)

    @classmethod
    def read_latent(cls, keys: Keys) -> dict[str, object]:
        """The latent's fields."""
        return _read_latent(keys)

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Latent attention."""
        return self.latent_attention(weights, index)

    def latent_attention(
        self,
        weights: Weights,
        layer: int,
        *,
        num_heads: int = 0,
        sizes: LatentSizes | None = None,
        scale: float = 0.0,
        index: IndexShape | None = None,
        own_index: bool = True,
        window: int = 0,
        norm_turned: bool = False,
    ) -> LatentAttention:
        """Build a layer's attention; what is not said is as in all layers."""
        config = self.config
        return LatentAttention(
            weights,
            hidden_size=config.hidden_size,
            num_heads=num_heads or config.num_heads,
            sizes=sizes or config.sizes,
            query_rank=config.query_rank,
            eps=config.rms_norm_eps,
            rope=self.rope_of(layer) if self.turns(layer) else None,
            rope_style=self.rope_style,
            scale=scale or config.attention_scale,
            temperature=config.temperature,
            gate=self.gate,
            sinks=self.sinks,
            index=index,
            own_index=own_index,
            window=window,
            norm_turned=norm_turned,
            indexer=self.indexer,
        )


def _read_latent(keys: Keys) -> dict[str, object]:
    """Lengths of heads have keys of their own in newer files.

    Raises:
        ModelFormatError, UnsupportedModelError: rotation that makes no sense, or is not there.
    """
    length = keys.count("attention.key_length_mla", 0) or keys.positive("attention.key_length")
    value = keys.count("attention.value_length_mla", 0) or keys.positive("attention.value_length")
    rope, scale = _read_scales(keys, length)
    return {
        "head_dim": length,
        "value_dim": value,
        "rope": rope,
        "query_rank": keys.count("attention.q_lora_rank", 0),
        "latent": keys.positive("attention.kv_lora_rank"),
        "attention_scale": scale,
        "temperature": _read_temperature(keys),
    }


def _read_scales(keys: Keys, head_dim: int) -> tuple[RopeConfig, float]:
    """Rotary embedding, and the factor of scores.

    YaRN lengthens what turns only where the file has no multiplier; scores grow by the square of
    that and of what the multiplier says.
    """
    rope = read_rope(keys, head_dim)
    if rope.scaling == "linear":
        raise UnsupportedModelError(
            f"{keys.file.path}: {keys.name('rope.scaling.type')} is 'linear'; supported are none "
            f"and yarn in {keys.architecture}"
        )
    if rope.dimensions >= head_dim:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('rope.dimension_count')} is {rope.dimensions}, expected "
            f"less than the head's {head_dim}"
        )
    if rope.scaling == "none":
        return rope, rope.attention_factor**2 / math.sqrt(head_dim)
    growth = math.log(max(rope.factor, 1))
    # The converter writes a tenth of the model's mscale_all_dim.
    multiplier = keys.number("rope.scaling.yarn_log_multiplier", 0.0)
    magnitude = rope.attention_factor * (1 if multiplier else 1 + 0.1 * growth)
    scale = (magnitude * (1 + multiplier * growth)) ** 2 / math.sqrt(head_dim)
    if multiplier:  # Rope multiplies by what a file without multiplier gets
        factor = rope.attention_factor / (1 + 0.1 * growth)
        rope = replace(rope, attention_factor=factor)
    return rope, scale


def _read_temperature(keys: Keys) -> Temperature | None:
    """How queries grow with their position, if they do (Mistral Large 3)."""
    scale = keys.number("attention.temperature_scale", 0.0)
    return Temperature(scale, keys.positive("attention.temperature_length")) if scale else None
