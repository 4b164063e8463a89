"""DeepSeek-V2 and V3, and what is built like them: GLM-4.7-Flash, Kimi K2, Moonlight.

Source: arXiv 2405.04434, 2412.19437; llama.cpp, src/models/deepseek2.cpp, src/llama-context.cpp.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from moestream.backends import AttentionShape, Gating
from moestream.errors import ModelFormatError, UnsupportedModelError
from moestream.layers.attention import Temperature
from moestream.layers.cache import StateShape
from moestream.layers.mla import LatentAttention, LatentGate, LatentSizes
from moestream.layers.rope import RopeConfig
from moestream.layers.weights import Weights
from moestream.models.config import read_rope
from moestream.models.deepseek_moe import DeepSeekMoE, DeepSeekMoEConfig, read_mixture
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSeek2Config(DeepSeekMoEConfig):
    """``query_rank`` 0: queries are projected at once. Scores are multiplied by ``scale``."""

    query_rank: int
    latent: int
    scale: float
    temperature: Temperature | None

    def state_shapes(self) -> tuple[StateShape, ...]:
        """One latent and one turned key a position, of which the latent is the value too."""
        shape = AttentionShape(1, self.latent + self.rope.dimensions, 0)
        return (shape,) * self.num_layers


class DeepSeek2(DeepSeekMoE):
    """Latent attention before DeepSeek's mixture."""

    rope_style = "interleaved"
    predicts_further = True
    turned: ClassVar[bool] = True
    gate: ClassVar[LatentGate] = "none"
    config: DeepSeek2Config

    @classmethod
    def read_config(cls, keys: Keys) -> DeepSeek2Config:
        """Add the latent's keys. Lengths of heads have keys of their own in newer files."""
        keys.require(cls.supported)
        mixture = read_mixture(keys, _default_gating(keys))
        return DeepSeek2Config.read(keys, **read_latent(keys), **mixture)

    def mixer(self, weights: Weights, index: int) -> LatentAttention:
        """Latent attention."""
        config = self.config
        turned = config.rope.dimensions
        return LatentAttention(
            weights,
            hidden_size=config.hidden_size,
            num_heads=config.num_heads,
            sizes=LatentSizes(config.latent, config.head_dim - turned, turned, config.value_dim),
            query_rank=config.query_rank,
            eps=config.rms_norm_eps,
            rope=self.rope if self.turned else None,
            rope_style=self.rope_style,
            scale=config.scale,
            temperature=config.temperature,
            gate=self.gate,
        )


def read_latent(keys: Keys) -> dict[str, object]:
    """Fields of latent attention.

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
        "scale": scale,
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


def _default_gating(keys: Keys) -> Gating:
    """Early files do not say; GLM-4.7-Flash is known by its size."""
    glm = keys.num_layers() in (47, 48) and keys.vocab_size() == 154880
    return "sigmoid" if glm else "softmax"
