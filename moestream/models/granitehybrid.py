"""Granite 4: Mamba-2 with attention here and there.

Source: llama.cpp, src/models/granite-hybrid.cpp.
"""

from dataclasses import dataclass

from moestream.layers.mamba2 import Mamba2
from moestream.models.config import ModelConfig
from moestream.models.granitemoe import GraniteMoE
from moestream.models.hybrid import Hybrid
from moestream.models.keys import Keys
from moestream.models.mamba2_keys import read_mamba2


@dataclass(frozen=True, slots=True, kw_only=True)
class GraniteHybridConfig(ModelConfig):
    """Layers that attend are ``turned`` to positions, or not."""

    turned: bool


class GraniteHybrid(Hybrid, GraniteMoE):
    """Granite's multipliers; experts beside a shared one, or a dense network."""

    dense_without_experts = True
    default_logit_scale = 1.0
    recurrence = Mamba2
    config_type = GraniteHybridConfig
    config: GraniteHybridConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add what Mamba-2 needs."""
        turned = keys.flag("rope.scaling.finetuned", True)
        return super().read_own(keys) | {"recurrent": read_mamba2(keys), "turned": turned}

    def turns(self, index: int) -> bool:
        """As the file says."""
        return self.config.turned
