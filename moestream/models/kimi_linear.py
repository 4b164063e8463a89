"""Kimi Linear.

Source: arXiv 2510.26692; llama.cpp, src/models/kimi-linear.cpp.
"""

from dataclasses import replace
from typing import ClassVar

from moestream.errors import ModelFormatError
from moestream.layers.kimi_delta import KimiDelta, KimiDeltaShape
from moestream.models.hybrid import Hybrid
from moestream.models.keys import Keys
from moestream.models.latent_moe import LatentMoE


class KimiLinear(Hybrid, LatentMoE):
    """Delta rules with latent attention here and there, which is not turned to positions."""

    default_shared = 1
    normalise: ClassVar[bool | None] = True
    recurrence = KimiDelta

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the delta rule's sizes."""
        return super().read_own(keys) | {"recurrent": cls.read_delta(keys)}

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

    @property
    def shared_width(self) -> int:
        """All shared experts side by side, of which there is one at least."""
        return max(self.config.shared_experts, 1) * self.expert_width


def read_bounded(keys: Keys, shape: KimiDeltaShape) -> KimiDeltaShape:
    """The same with decays that are bounded, where the file says, by rates that are negative.

    Raises:
        ModelFormatError: a bound that is none.
    """
    name = keys.name("kda.gate_lower_bound")
    bound = keys.file.get(name, float, 0.0)
    if not -1e3 < bound <= 0:
        raise ModelFormatError(
            f"{keys.file.path}: {name} is {bound}, expected more than -1000, and at most 0"
        )
    return replace(shape, bound=bound, falling=True)
