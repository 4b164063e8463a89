"""gpt-oss.

Source: arXiv 2508.10925; llama.cpp, src/models/openai-moe.cpp.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from moestream.backends import Routing
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.config import ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class GptOssConfig(ModelConfig):
    """``sliding_window`` positions are what every other layer sees, the first one included."""

    sliding_window: int
    windowed: tuple[bool, ...]
    windowed_rope_base: float


class GptOss(Decoder):
    """Biases everywhere, attention sinks, every other layer windowed, a clamped activation.

    Its router weighs the chosen experts alone. Its second norm is called after what comes before.
    """

    rope_style = "half"
    own_expert_width = True
    activation = "swiglu_oai"
    ffn_norm = "post_attention_norm.weight"
    config_type = GptOssConfig
    config: GptOssConfig

    @cached_property
    def windowed_rope(self) -> Rope:
        """What turns windowed layers."""
        return Rope(replace(self.config.rope, base=self.config.windowed_rope_base))

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """The window, and the layers that have it."""
        base = keys.above(1, "rope.freq_base", 10000.0)
        return {
            "sliding_window": keys.positive("attention.sliding_window"),
            "windowed": keys.windowed_layers(keys.num_layers(), every=2),
            "windowed_rope_base": keys.above(1, "rope.freq_base_swa", base),
        }

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention with a sink a head."""
        if not self.config.windowed[index]:
            return self.attention(weights, index, sinks=True)
        window, rope = self.config.sliding_window, self.windowed_rope
        return self.attention(weights, index, window=window, rope=rope, sinks=True)

    def routing(self) -> Routing:
        """Softmax over the chosen."""
        return Routing(self.config.num_experts_per_tok, normalise=False, gating="softmax_of_chosen")
