"""LFM2-MoE: short convolutions with attention here and there.

Source: arXiv 2511.23404; llama.cpp, src/models/lfm2moe.cpp.
"""

from dataclasses import dataclass

from moestream.backends import Routing
from moestream.layers.cache import RecurrentShape, StateShape
from moestream.layers.convolution import ShortConvolution
from moestream.layers.weights import Weights
from moestream.models.config import SUPPORTED, ModelConfig
from moestream.models.hybrid import Hybrid
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolvedConfig(ModelConfig):
    """Layers that do not attend convolve the last ``conv_width`` tokens."""

    conv_width: int

    def recurrent_state(self, layer: int) -> StateShape:
        """The convolution's last inputs."""
        return RecurrentShape(((self.conv_width - 1, self.hidden_size),))


class LFM2MoE(Hybrid):
    """Experts chosen by a sigmoid and a bias, after leading dense layers."""

    supported = SUPPORTED | {"expert_gating_func": ((2,), "2: sigmoid")}
    rope_style = "half"
    qk_norm = "head"
    norm_topk_prob = True
    own_expert_width = True
    output_norm_name = "token_embd_norm.weight"
    config_type = ConvolvedConfig
    config: ConvolvedConfig

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """The convolution's width, and how many dense layers lead."""
        return {
            "leading_dense_layers": keys.count("leading_dense_block_count", 0),
            "conv_width": keys.size("shortconv.l_cache"),
        }

    def recurrent(self, weights: Weights, index: int) -> ShortConvolution:
        """A convolution."""
        config = self.config
        size, eps = config.hidden_size, config.rms_norm_eps
        return ShortConvolution(weights, hidden_size=size, width=config.conv_width, eps=eps)

    def routing(self) -> Routing:
        """Each expert is judged by itself."""
        return Routing(self.config.num_experts_per_tok, normalise=True, gating="sigmoid")
