"""Kimi Linear.

Source: arXiv 2510.26692; llama.cpp, src/models/kimi-linear.cpp.
"""

from dataclasses import dataclass
from typing import ClassVar

from moestream.layers.cache import StateShape
from moestream.layers.kimi_delta import KimiDelta, KimiDeltaShape
from moestream.layers.weights import Weights
from moestream.models.hybrid import Hybrid
from moestream.models.keys import Keys
from moestream.models.latent_moe import LatentConfig, LatentMoE


@dataclass(frozen=True, slots=True, kw_only=True)
class KimiLinearConfig(LatentConfig):
    """Layers that do not attend are of shape ``delta``."""

    delta: KimiDeltaShape

    def recurrent_state(self, layer: int) -> StateShape:
        """The delta rule's."""
        return self.delta.state()


class KimiLinear(Hybrid, LatentMoE):
    """Delta rules with latent attention here and there, which is not turned to positions."""

    default_shared = 1
    normalise: ClassVar[bool | None] = True
    config_type = KimiLinearConfig
    config: KimiLinearConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the delta rule's sizes."""
        return super().read_own(keys) | {"delta": cls.read_delta(keys)}

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

    def turns(self, index: int) -> bool:
        """No layer does."""
        return False

    def recurrent(self, weights: Weights, index: int) -> KimiDelta:
        """Kimi's delta rule."""
        size, eps = self.config.hidden_size, self.config.rms_norm_eps
        return KimiDelta(weights, hidden_size=size, shape=self.config.delta, eps=eps)

    @property
    def shared_width(self) -> int:
        """All shared experts side by side, of which there is one at least."""
        return max(self.config.shared_experts, 1) * self.expert_width
