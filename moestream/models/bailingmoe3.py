"""Ling and Ring 3.

Source: llama.cpp, src/models/bailingmoe3.cpp.
"""

from dataclasses import replace

from moestream.errors import ModelFormatError
from moestream.layers.kimi_delta import KimiDeltaShape
from moestream.models.deepseek_moe import read_limits
from moestream.models.keys import Keys
from moestream.models.kimi_linear import KimiLinear


class BailingMoE3(KimiLinear):
    """Kimi Linear with decays that are bounded, and latent attention turned and gated by head."""

    supported = KimiLinear.supported | {
        "kda.safe_gate": ((True,), "True: decays that are bounded"),
    }
    gate = "heads"
    normalise = None

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add the limits of inner values."""
        return super().read_own(keys) | read_limits(keys)

    @classmethod
    def read_delta(cls, keys: Keys) -> KimiDeltaShape:
        """The same, with the bound."""
        name = keys.name("kda.gate_lower_bound")
        bound = keys.file.get(name, float)
        if not -1e3 < bound < 0:
            raise ModelFormatError(f"{keys.file.path}: {name} is {bound}, expected less than 0")
        return replace(super().read_delta(keys), bound=bound)

    def turns(self, index: int) -> bool:
        """All layers that attend."""
        return True

    @property
    def shared_width(self) -> int:
        """Files without it give shared experts the routed experts' width."""
        return self.config.shared_intermediate_size or super().shared_width
