"""Cohere's North Mini Code (cohere2moe).

Source: llama.cpp, src/models/cohere2moe.cpp.
"""

from moestream.backends import Array
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.blocks import ParallelLayer
from moestream.models.keys import Keys
from moestream.models.sliding_moe import SlidingMoE

_RMS, _MEAN = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"


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

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add what norms and logits need; the key of the epsilon tells which norm it is."""
        eps = keys.number(_RMS, 0.0)
        return super().read_own(keys) | {
            "rms_norm_eps": eps or keys.number(_MEAN),
            "centred": not eps,
            "logit_scale": keys.number("logit_scale") or 1.0,
        }

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
