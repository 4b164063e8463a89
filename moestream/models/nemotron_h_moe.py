"""Nemotron 3: Nano, Super.

Source: arXiv 2512.20856; llama.cpp, src/models/nemotron-h.cpp.
"""

from dataclasses import dataclass

from moestream.backends import Routing
from moestream.layers.cache import StateShape
from moestream.layers.ffn import Gate
from moestream.layers.mamba2 import Mamba2, Mamba2Shape
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer, MixerLayer, NetworkLayer
from moestream.models.deepseek_moe import DeepSeekMoE, DeepSeekMoEConfig, read_mixture
from moestream.models.keys import Keys
from moestream.models.mamba2_keys import hybrid_states, read_mamba2


@dataclass(frozen=True, slots=True, kw_only=True)
class NemotronHConfig(DeepSeekMoEConfig):
    """``networks`` are the layers of experts; others attend, or are Mamba-2.

    Experts work in ``latent`` numbers, 0 for all; ``attention_scale`` 0 is the usual one.
    """

    mamba: Mamba2Shape
    networks: tuple[bool, ...]
    latent: int
    attention_scale: float

    def state_shapes(self) -> tuple[StateShape, ...]:
        """By what a layer is."""
        return hybrid_states(self, self.mamba, self.networks)


class NemotronHMoE(DeepSeekMoE):
    """A layer is Mamba-2, attention without positions or experts that square, and that alone."""

    rope_style = "half"
    ffn_norm = "attn_norm.weight"
    config: NemotronHConfig

    @classmethod
    def read_config(cls, keys: Keys) -> NemotronHConfig:
        """Add what Mamba-2 needs, and which layers are networks."""
        keys.require(cls.supported)
        widths = keys.per_layer("feed_forward_length", keys.num_layers(), 0)
        eps = keys.number("attention.layer_norm_rms_epsilon", 0.0)
        return NemotronHConfig.read(
            keys,
            rms_norm_eps=eps or keys.number("attention.layer_norm_epsilon"),
            mamba=read_mamba2(keys),
            networks=tuple(width > 0 for width in widths),
            latent=keys.count("moe_latent_size", 0),
            attention_scale=keys.number("attention.scale", 0.0),
            **read_mixture(keys, shared=0) | {"leading_dense_layers": 0},
        )

    def layer(self, weights: Weights, index: int) -> MixerLayer | NetworkLayer:
        """A layer of one part."""
        if self.config.networks[index]:
            return NetworkLayer(self.ffn(weights, index))
        return MixerLayer(self.mixer(weights, index))

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention where a layer has key/value heads, else Mamba-2."""
        config = self.config
        if config.kv_heads[index]:
            scale = config.attention_scale or None
            return self.attention(weights, index, scale=scale, turned=False)
        eps = config.rms_norm_eps
        return Mamba2(weights, hidden_size=config.hidden_size, shape=config.mamba, eps=eps)

    def gating(self, index: int) -> Gate:
        """The square of what is positive."""
        return Gate("relu", own=False)

    def routing(self) -> Routing:
        """As the file says, by a sigmoid."""
        return self.config.routing

    @property
    def expert_latent(self) -> int:
        """As the file says."""
        return self.config.latent

    @property
    def expert_width(self) -> int:
        """Files without it share the layer's width among the chosen."""
        config = self.config
        widest = max(config.intermediate_sizes)
        return config.moe_intermediate_size or widest // config.num_experts_per_tok

    @property
    def shared_width(self) -> int:
        """As the file says."""
        return self.config.shared_intermediate_size
