"""Nemotron 3: Nano, Super.

Source: arXiv 2512.20856; llama.cpp, src/models/nemotron-h.cpp.
"""

from dataclasses import dataclass

from moestream.layers.cache import FORGETS, StateShape
from moestream.layers.ffn import Gate
from moestream.layers.mamba2 import Mamba2
from moestream.layers.weights import Weights
from moestream.models.blocks import MixerLayer, NetworkLayer
from moestream.models.deepseek_moe import DeepSeekMoE, DeepSeekMoEConfig
from moestream.models.hybrid import Hybrid
from moestream.models.keys import Keys
from moestream.models.mamba2_keys import read_mamba2


@dataclass(frozen=True, slots=True, kw_only=True)
class NemotronHConfig(DeepSeekMoEConfig):
    """``networks`` are the layers of experts, which work in ``latent`` numbers, 0 for all."""

    networks: tuple[bool, ...]
    latent: int

    def recurrent_state(self, layer: int) -> StateShape:
        """The recurrence's; networks have none."""
        return FORGETS if self.networks[layer] else DeepSeekMoEConfig.recurrent_state(self, layer)


class NemotronHMoE(Hybrid, DeepSeekMoE):
    """A layer is Mamba-2, attention without positions or experts that square, and that alone."""

    rope_style = "half"
    ffn_norm = "attn_norm.weight"
    default_shared = 0
    recurrence = Mamba2
    config_type = NemotronHConfig
    config: NemotronHConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add what Mamba-2 needs, and which layers are networks."""
        widths = keys.per_layer("feed_forward_length", keys.num_layers(), 0)
        eps = keys.number("attention.layer_norm_rms_epsilon", 0.0)
        return super().read_own(keys) | {
            "leading_dense_layers": 0,
            "rms_norm_eps": eps or keys.number("attention.layer_norm_epsilon"),
            "attention_scale": keys.number("attention.scale", 0.0) or None,
            "recurrent": read_mamba2(keys),
            "networks": tuple(width > 0 for width in widths),
            "latent": keys.count("moe_latent_size", 0),
        }

    def layer(self, weights: Weights, index: int) -> MixerLayer | NetworkLayer:
        """A layer of one part."""
        if self.config.networks[index]:
            return NetworkLayer(self.ffn(weights, index))
        return MixerLayer(self.mixer(weights, index))

    def turns(self, index: int) -> bool:
        """No layer does."""
        return False

    def gating(self, index: int) -> Gate:
        """The square of what is positive."""
        return Gate("relu", own=False)

    def shared_gating(self, index: int) -> Gate:
        """The same."""
        return self.gating(index)

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
