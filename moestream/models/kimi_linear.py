"""Kimi Linear.

Source: arXiv 2510.26692; llama.cpp, src/models/kimi-linear.cpp.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from moestream.backends import Routing
from moestream.layers.cache import StateShape
from moestream.layers.kimi_delta import KimiDelta, KimiDeltaShape
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.deepseek2 import DeepSeek2, DeepSeek2Config, read_latent
from moestream.models.deepseek_moe import read_mixture
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class KimiLinearConfig(DeepSeek2Config):
    """A layer without key/value heads is of shape ``delta``; the others keep latents."""

    delta: KimiDeltaShape

    def state_shapes(self) -> tuple[StateShape, ...]:
        """By what a layer is."""
        latents, recurrent = DeepSeek2Config.state_shapes(self), self.delta.state()
        return tuple(
            latent if heads else recurrent
            for latent, heads in zip(latents, self.kv_heads, strict=True)
        )


class KimiLinear(DeepSeek2):
    """Delta rules with latent attention here and there, which is not turned to positions."""

    predicts_further = False
    turned = False
    normalise: ClassVar[bool | None] = True
    """Whether router weights sum to one; None: as the file says."""
    config: KimiLinearConfig

    @classmethod
    def read_config(cls, keys: Keys) -> KimiLinearConfig:
        """Add the delta rule's sizes."""
        keys.require(cls.supported)
        return KimiLinearConfig.read(
            keys,
            delta=cls.read_delta(keys),
            **read_latent(keys),
            **read_mixture(keys, shared=1),
        )

    @classmethod
    def read_delta(cls, keys: Keys) -> KimiDeltaShape:
        """The sizes of the delta rule's layers."""
        shape = KimiDeltaShape(
            heads=keys.positive("attention.head_count"),
            dim=keys.positive("kda.head_dim"),
            conv_width=keys.size("ssm.conv_kernel"),
        )
        keys.require_size("the width of what is convolved", shape.inner)
        return shape

    def mixer(self, weights: Weights, index: int) -> Mixer:  # type: ignore[override]
        """Latent attention where a layer has key/value heads."""
        config = self.config
        if config.kv_heads[index]:
            return super().mixer(weights, index)
        eps = config.rms_norm_eps
        return KimiDelta(weights, hidden_size=config.hidden_size, shape=config.delta, eps=eps)

    def routing(self) -> Routing:
        """As the file says, but where the architecture decides what is normalised."""
        routing = self.config.routing
        return routing if self.normalise is None else replace(routing, normalise=self.normalise)

    @property
    def shared_width(self) -> int:
        """All shared experts side by side, of which there is one at least."""
        return max(self.config.shared_experts, 1) * self.expert_width
