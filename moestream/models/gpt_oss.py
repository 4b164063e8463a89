"""gpt-oss.

Source: arXiv 2508.10925; llama.cpp, src/models/openai-moe.cpp.
"""

from dataclasses import replace

from moestream.backends import Routing
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.config import read_rope
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


class GptOss(Decoder):
    """Biases everywhere, attention sinks, every other layer windowed, a clamped activation.

    Its router weighs the chosen experts alone. Its second norm is called after what comes before.
    """

    rope_style = "half"
    own_expert_width = True
    activation = "swiglu_oai"
    ffn_norm = "post_attention_norm.weight"

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """The window, which every other layer has, the first one included."""
        rope = read_rope(keys, keys.head_dim())
        return {
            "rope": rope,
            "window": keys.positive("attention.sliding_window"),
            "windowed": keys.windowed_layers(keys.num_layers(), every=2),
            "windowed_rope": replace(rope, base=keys.above(1, "rope.freq_base_swa", rope.base)),
        }

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention with a sink a head."""
        return self.attention(weights, index, sinks=True)

    def routing(self) -> Routing:
        """Softmax over the chosen."""
        return Routing(self.config.num_experts_per_tok, normalise=False, gating="softmax_of_chosen")
