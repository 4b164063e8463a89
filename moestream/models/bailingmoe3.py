"""Ling and Ring 3.

Source: llama.cpp, src/models/bailingmoe3.cpp.
"""

from dataclasses import dataclass, replace

from moestream.errors import ModelFormatError
from moestream.layers.ffn import Gate
from moestream.layers.kimi_delta import KimiDeltaShape
from moestream.models.deepseek2 import read_latent
from moestream.models.deepseek_moe import read_mixture
from moestream.models.keys import Keys
from moestream.models.kimi_linear import KimiLinear, KimiLinearConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class BailingMoE3Config(KimiLinearConfig):
    """Limits of inner values, layer by layer, 0 for none: of experts, and of other networks."""

    limits: tuple[float, ...]
    shared_limits: tuple[float, ...]


class BailingMoE3(KimiLinear):
    """Kimi Linear with decays that are bounded, and latent attention turned and gated by head."""

    supported = KimiLinear.supported | {
        "kda.safe_gate": ((True,), "True: decays that are bounded"),
    }
    turned = True
    gate = "heads"
    normalise = None
    config: BailingMoE3Config

    @classmethod
    def read_config(cls, keys: Keys) -> BailingMoE3Config:
        """Add the limits."""
        keys.require(cls.supported)
        layers = keys.num_layers()
        limits, shared = (
            keys.per_layer_numbers(f"swiglu_clamp_{part}", layers, 0.0) for part in ("exp", "shexp")
        )
        return BailingMoE3Config.read(
            keys,
            delta=cls.read_delta(keys),
            limits=limits,
            shared_limits=shared,
            **read_latent(keys),
            **read_mixture(keys, shared=1),
        )

    @classmethod
    def read_delta(cls, keys: Keys) -> KimiDeltaShape:
        """The same, with the bound."""
        name = keys.name("kda.gate_lower_bound")
        bound = keys.file.get(name, float)
        if not -1e3 < bound < 0:
            raise ModelFormatError(f"{keys.file.path}: {name} is {bound}, expected less than 0")
        return replace(super().read_delta(keys), bound=bound)

    def gating(self, index: int) -> Gate:
        """Bounded after the gate has passed."""
        return Gate.capped(self.config.limits[index])

    def shared_gating(self, index: int) -> Gate:
        """The same, with a limit of their own."""
        return Gate.capped(self.config.shared_limits[index])

    @property
    def shared_width(self) -> int:
        """Files without it give shared experts the routed experts' width."""
        return self.config.shared_intermediate_size or super().shared_width
