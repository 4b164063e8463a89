"""DeepSeek-V2 and V3, Kimi-K2 and GLM-4.7-Flash.

Source: arXiv 2405.04434, arXiv 2412.19437; llama.cpp, src/models/deepseek2.cpp.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from moestream.errors import ModelFormatError
from moestream.layers.cache import StateShape
from moestream.layers.mla import LatentAttention, LatentShape
from moestream.layers.rope import RopeConfig
from moestream.layers.weights import Weights
from moestream.models.biased_experts import BiasedExperts, BiasedExpertsConfig, biased_experts
from moestream.models.config import ModelConfig, read_rope
from moestream.models.decoder import Mixer
from moestream.models.keys import Keys, Supported

_GLM_FLASH = ((47, 48), 154880)  # layers and vocabulary of the files that do not name their gate


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSeek2Config(BiasedExpertsConfig):
    """A model with latent attention; ``scale`` is that of its scores."""

    latent: LatentShape
    scale: float

    def state_shapes(self) -> tuple[StateShape, ...]:
        """Latents alone, in either layout of the file."""
        return (self.latent.state,) * self.num_layers


class DeepSeek2(BiasedExperts):
    """Latent attention; experts chosen as in V2 (softmax) or V3 (sigmoid, bias and groups)."""

    config: DeepSeek2Config
    rope_style = "interleaved"
    supported: ClassVar[Supported] = BiasedExperts.supported | {
        "attention.temperature_length": ((0,), "0: no temperature that grows with positions"),
    }

    @classmethod
    def read_config(cls, keys: Keys) -> ModelConfig:
        """See ``Decoder.read_config``."""
        keys.require(cls.supported)
        latent = _read_latent(keys)
        rope, magnitude = _read_yarn(keys, latent.plain + latent.rotated)
        layers = keys.positive("block_count") - keys.count("nextn_predict_layers", 0)
        glm = layers in _GLM_FLASH[0] and keys.vocab_size() == _GLM_FLASH[1]
        return DeepSeek2Config.read(
            keys,
            **biased_experts(keys, gating=2 if glm else 1),
            latent=latent,
            rope=rope,
            scale=magnitude**2 / math.sqrt(latent.plain + latent.rotated),
        )

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Latent attention."""
        config = self.config
        return LatentAttention(
            weights,
            config.latent,
            hidden_size=config.hidden_size,
            eps=config.rms_norm_eps,
            rope=self.rope,
            rope_style=self.rope_style,
            scale=config.scale,
        )


def _read_latent(keys: Keys) -> LatentShape:
    key = keys.count("attention.key_length_mla", 0) or keys.positive("attention.key_length")
    value = keys.count("attention.value_length_mla", 0) or keys.positive("attention.value_length")
    rotated = keys.positive("rope.dimension_count")
    if rotated >= key:
        raise ModelFormatError(
            f"{keys.file.path}: {keys.name('rope.dimension_count')} is {rotated}, expected less "
            f"than the head's {key}"
        )
    return LatentShape(
        heads=keys.positive("attention.head_count"),
        query_rank=keys.count("attention.q_lora_rank", 0),
        rank=keys.positive("attention.kv_lora_rank"),
        plain=key - rotated,
        rotated=rotated,
        value=value,
    )


def _read_yarn(keys: Keys, head_dim: int) -> tuple[RopeConfig, float]:
    """Rotation, and what YaRN multiplies queries and keys by, each.

    With a log multiplier m (written as m / 10), scores grow by the square of 1 + m/10 ln(factor)
    and the rotated part does not grow besides; without one, both grow as in plain YaRN.
    """
    rope = read_rope(keys, head_dim)
    plain = 1 + 0.1 * math.log(rope.factor)
    multiplier = keys.number("rope.scaling.yarn_log_multiplier", 0.0)
    magnitude = rope.attention_factor * (1 + multiplier * math.log(rope.factor))
    if rope.scaling == "yarn" and multiplier:
        return replace(rope, attention_factor=rope.attention_factor / plain), magnitude
    return rope, magnitude * plain
