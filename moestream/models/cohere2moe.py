"""Cohere's North Mini Code (cohere2moe).

Source: llama.cpp, src/models/cohere2moe.cpp.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.blocks import ParallelLayer
from moestream.models.keys import Keys
from moestream.models.sliding_moe import SlidingConfig, SlidingMoE

_RMS, _MEAN = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohere2MoEConfig(SlidingConfig):
    """Logits are multiplied by ``logit_scale``; ``centred`` norms take the mean first."""

    logit_scale: float
    centred: bool


class HalvedMoE(MoE):
    """The mean of routed and shared experts, where there are any shared."""

    def join(self, routed: Array, beside: Array | None) -> Array:
        """(T, E)."""
        joined = super().join(routed, beside)
        return joined if beside is None else joined * 0.5


class Cohere2MoE(SlidingMoE):
    """Attention and experts side by side after one norm; only windowed and leading layers turn."""

    rope_style = "interleaved"
    qk_norm = "none"
    first_full = True
    windowed_base = False
    ffn_norm = "attn_norm.weight"
    mixture = HalvedMoE
    config: Cohere2MoEConfig

    @classmethod
    def read_config(cls, keys: Keys) -> Cohere2MoEConfig:
        """Add what norms and logits need; the key of the epsilon tells which norm it is."""
        keys.require(cls.supported)
        eps = keys.number(_RMS, 0.0)
        return Cohere2MoEConfig.read(
            keys,
            rms_norm_eps=eps or keys.number(_MEAN),
            centred=not eps,
            logit_scale=keys.number("logit_scale") or 1.0,
            **cls.read_own(keys),
        )

    @property
    def centred_norms(self) -> bool:
        """As the file says."""
        return self.config.centred

    @property
    def shared_width(self) -> int:
        """All shared experts side by side; they may have a width of their own."""
        config = self.config
        own = config.shared_intermediate_size or config.shared_experts * self.expert_width
        return own if config.shared_experts else 0

    def turns(self, index: int) -> bool:
        """Windowed layers, and the dense ones that lead."""
        return self.config.windowed[index] or index < self.config.leading_dense_layers

    def layer(self, weights: Weights, index: int) -> ParallelLayer:
        """One layer of both at once."""
        return ParallelLayer(self.mixer(weights, index), self.ffn(weights, index))

    def logits(self, hidden: Array) -> NDArray[np.float32]:
        """Scaled logits: (T, E) -> (T, V)."""
        return super().logits(hidden) * np.float32(self.config.logit_scale)
