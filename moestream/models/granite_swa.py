"""Granite with windows.

Source: llama.cpp, src/models/granite-swa.cpp.
"""

from dataclasses import dataclass

from moestream.layers.attention import Attention
from moestream.layers.ffn import FeedForward, GatedMLP
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.granitemoe import GraniteMoE, GraniteMoEConfig, read_multipliers
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class GraniteSWAConfig(GraniteMoEConfig):
    """``windowed`` layers see ``window`` positions; ``turned`` ones are turned to theirs."""

    window: int
    windowed: tuple[bool, ...]
    turned: tuple[bool, ...]


class GraniteSWA(GraniteMoE):
    """Sinks in every layer; each is windowed or not, and turned or not; gate and up as one."""

    config: GraniteSWAConfig

    @classmethod
    def read_config(cls, keys: Keys) -> GraniteSWAConfig:
        """Add what layers differ in."""
        keys.require(cls.supported)
        layers = keys.num_layers()
        return GraniteSWAConfig.read(
            keys,
            window=keys.positive("attention.sliding_window"),
            windowed=tuple(map(bool, keys.per_layer("attention.sliding_window_pattern", layers))),
            turned=tuple(map(bool, keys.per_layer("attention.rope_pattern", layers, 1))),
            **read_multipliers(keys),
        )

    def mixer(self, weights: Weights, index: int) -> Attention:
        """Attention with a sink a head."""
        config = self.config
        return self.attention(
            weights,
            index,
            scale=config.attention_scale or None,
            window=config.window if config.windowed[index] else 0,
            turned=config.turned[index],
            sinks=True,
        )

    def ffn(self, weights: Weights, index: int) -> FeedForward | MoE:
        """Experts, or a dense network where the file counts none."""
        if self.config.num_experts:
            return self.moe(weights, index)
        return self.dense(weights, index)

    def shared(self, weights: Weights, index: int) -> GatedMLP | None:
        """Gate and up lie in one matrix, the gate first."""
        if not self.shared_width:
            return None
        return GatedMLP(weights, self.config.hidden_size, self.shared_width, "_shexp", fused=True)
