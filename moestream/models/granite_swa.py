"""Granite with windows.

Source: llama.cpp, src/models/granite-swa.cpp.
"""

from dataclasses import dataclass

from moestream.layers.ffn import GatedMLP
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.config import ModelConfig
from moestream.models.granitemoe import GraniteMoE
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class GraniteSWAConfig(ModelConfig):
    """``turned`` layers are turned to their positions."""

    turned: tuple[bool, ...]


class GraniteSWA(GraniteMoE):
    """Sinks in every layer; each is windowed or not, and turned or not; gate and up as one."""

    dense_without_experts = True
    config_type = GraniteSWAConfig
    config: GraniteSWAConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add what layers differ in."""
        layers = keys.num_layers()
        return super().read_own(keys) | {
            "window": keys.positive("attention.sliding_window"),
            "windowed": keys.marked_layers("attention.sliding_window_pattern", layers),
            "turned": keys.marked_layers("attention.rope_pattern", layers, 1),
        }

    def turns(self, index: int) -> bool:
        """As the file says."""
        return self.config.turned[index]

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention with a sink a head."""
        return self.attention(weights, index, sinks=True)

    def shared(self, weights: Weights, index: int) -> GatedMLP | None:
        """Gate and up lie in one matrix, the gate first."""
        if not self.shared_width:
            return None
        return GatedMLP(weights, self.config.hidden_size, self.shared_width, "_shexp", fused=True)
