"""LFM2-MoE: short convolutions with attention here and there.

Source: arXiv 2511.23404; llama.cpp, src/models/lfm2moe.cpp.
"""

from dataclasses import dataclass

from moestream.backends import Routing
from moestream.layers.cache import RecurrentShape, StateShape
from moestream.layers.convolution import ShortConvolution
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.config import SUPPORTED, ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolvedConfig(ModelConfig):
    """A layer without key/value heads convolves the last ``conv_width`` tokens."""

    conv_width: int

    def state_shapes(self) -> tuple[StateShape, ...]:
        """Keys and values where a layer attends, else the convolution's last inputs."""
        convolved = RecurrentShape(((self.conv_width - 1, self.hidden_size),))
        return tuple(
            shape if heads else convolved
            for shape, heads in zip(ModelConfig.state_shapes(self), self.kv_heads, strict=True)
        )


class LFM2MoE(Decoder):
    """Experts chosen by a sigmoid and a bias, after leading dense layers."""

    supported = SUPPORTED | {"expert_gating_func": ((2,), "2: sigmoid")}
    rope_style = "half"
    qk_norm = "head"
    norm_topk_prob = True
    own_expert_width = True
    output_norm_name = "token_embd_norm.weight"
    config: ConvolvedConfig

    @classmethod
    def read_config(cls, keys: Keys) -> ModelConfig:
        """Read the dimensions."""
        keys.require(cls.supported)
        return ConvolvedConfig.read(
            keys,
            leading_dense_layers=keys.count("leading_dense_block_count", 0),
            conv_width=keys.size("shortconv.l_cache"),
        )

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention where the layer has key/value heads."""
        config = self.config
        if config.kv_heads[index]:
            return self.attention(weights, index)
        return ShortConvolution(
            weights,
            hidden_size=config.hidden_size,
            width=config.conv_width,
            eps=config.rms_norm_eps,
        )

    def routing(self) -> Routing:
        """Each expert is judged by itself."""
        return Routing(self.config.num_experts_per_tok, normalise=True, gating="sigmoid")
