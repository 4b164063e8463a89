"""gpt-oss.

Source: arXiv 2508.10925; llama.cpp, src/models/openai-moe.cpp.
"""

from dataclasses import dataclass, replace

from moestream.backends import Backend, Routing
from moestream.gguf import GGUFFile
from moestream.layers.attention import Attention
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights
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
    config: GptOssConfig

    def __init__(
        self, file: GGUFFile, config: GptOssConfig, backend: Backend, context_length: int
    ) -> None:
        self.windowed_rope = Rope(replace(config.rope, base=config.windowed_rope_base))
        super().__init__(file, config, backend, context_length)

    @classmethod
    def read_config(cls, keys: Keys) -> GptOssConfig:
        """Add the window, and the layers that have it."""
        keys.require(cls.supported)
        num_layers = keys.num_layers()
        return GptOssConfig.read(
            keys,
            sliding_window=keys.positive("attention.sliding_window"),
            windowed=keys.windowed_layers(num_layers, every=2),
            windowed_rope_base=keys.above(
                1, "rope.freq_base_swa", keys.above(1, "rope.freq_base", 10000.0)
            ),
        )

    def mixer(self, weights: Weights, index: int) -> Attention:
        """Attention with a sink a head."""
        if not self.config.windowed[index]:
            return self.attention(weights, index, sinks=True)
        window, rope = self.config.sliding_window, self.windowed_rope
        return self.attention(weights, index, window=window, rope=rope, sinks=True)

    def routing(self) -> Routing:
        """Softmax over the chosen."""
        return Routing(self.config.num_experts_per_tok, normalise=False, gating="softmax_of_chosen")
