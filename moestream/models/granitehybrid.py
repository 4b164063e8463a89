"""Granite 4: Mamba-2 with attention here and there.

Source: llama.cpp, src/models/granite-hybrid.cpp.
"""

from dataclasses import dataclass

from moestream.layers.cache import StateShape
from moestream.layers.ffn import FeedForward
from moestream.layers.mamba2 import Mamba2, Mamba2Shape
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.granitemoe import GraniteMoE, GraniteMoEConfig, read_multipliers
from moestream.models.keys import Keys
from moestream.models.mamba2_keys import hybrid_states, read_mamba2


@dataclass(frozen=True, slots=True, kw_only=True)
class GraniteHybridConfig(GraniteMoEConfig):
    """A layer without key/value heads is Mamba-2; attention is ``turned`` to positions, or not."""

    mamba: Mamba2Shape
    turned: bool

    def state_shapes(self) -> tuple[StateShape, ...]:
        """By what a layer is."""
        return hybrid_states(self, self.mamba)


class GraniteHybrid(GraniteMoE):
    """Granite's multipliers; experts beside a shared one, or a dense network."""

    config: GraniteHybridConfig

    @classmethod
    def read_config(cls, keys: Keys) -> GraniteHybridConfig:
        """Add what Mamba-2 needs."""
        keys.require(cls.supported)
        return GraniteHybridConfig.read(
            keys,
            mamba=read_mamba2(keys),
            turned=keys.flag("rope.scaling.finetuned", True),
            **read_multipliers(keys, 1.0),
        )

    def mixer(self, weights: Weights, index: int) -> Mixer:  # type: ignore[override]
        """Mamba-2 where a layer has no key/value heads."""
        config = self.config
        if config.kv_heads[index]:
            scale = config.attention_scale or None
            return self.attention(weights, index, scale=scale, turned=config.turned)
        eps = config.rms_norm_eps
        return Mamba2(weights, hidden_size=config.hidden_size, shape=config.mamba, eps=eps)

    def ffn(self, weights: Weights, index: int) -> FeedForward | MoE:
        """Experts, or a dense network where the file counts none."""
        if self.config.num_experts:
            return self.moe(weights, index)
        return self.dense(weights, index)
