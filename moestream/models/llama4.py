"""Llama 4: Scout and Maverick, their text, in contexts of up to 8,192 tokens.

Beyond, three layers of four would see nothing of the stretches of 8,192 before their own, which is
not supported. Within it they see everything.

Source: llama.cpp, src/models/llama4.cpp.
"""

from dataclasses import dataclass

from moestream.backends import Backend, Routing
from moestream.errors import UnsupportedModelError
from moestream.gguf import GGUFFile
from moestream.layers.attention import Temperature
from moestream.layers.ffn import FeedForward
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.config import SUPPORTED, ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys

_STRETCH = 8192
_TURNLESS = 4
"""Every so many-th layer is not turned, and sees everything."""
_UNNORMED_EXPERTS = 128
"""With so many experts, which is Maverick's number, queries and keys are not normed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama4Config(ModelConfig):
    """Every ``moe_step``-th layer has experts, the others a dense network."""

    moe_step: int


class Llama4(Decoder):
    """One expert a token, its input weighed by a sigmoid, beside a shared one."""

    supported = SUPPORTED | {
        "expert_used_count": ((1,), "1: one expert a token"),
        "attention.sliding_window": ((_STRETCH,), f"{_STRETCH}: stretches of that length"),
    }
    rope_style = "interleaved"
    own_expert_width = True
    weigh_input = True
    config_type = Llama4Config
    config: Llama4Config

    def __init__(
        self, file: GGUFFile, config: Llama4Config, backend: Backend, context_length: int
    ) -> None:
        if context_length > _STRETCH:
            raise UnsupportedModelError(
                f"{file.path}: llama4 runs in contexts of up to {_STRETCH} tokens here, and "
                f"{context_length} are asked for; use -c {_STRETCH} or less"
            )
        super().__init__(file, config, backend, context_length)

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Which layers have experts, and how long a context may be."""
        return {
            "context_length": min(keys.positive("context_length"), _STRETCH),
            "moe_step": keys.positive("interleave_moe_layer_step"),
        }

    def turns(self, index: int) -> bool:
        """All but every fourth."""
        return (index + 1) % _TURNLESS != 0

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Layers that are not turned have queries that grow with their position."""
        if not self.turns(index):
            return self.attention(weights, index, temperature=Temperature(0.1, _STRETCH, 1))
        normed = self.config.num_experts != _UNNORMED_EXPERTS
        return self.attention(weights, index, qk_norm="unweighted_turned" if normed else "none")

    def ffn(self, weights: Weights, index: int) -> FeedForward | MoE:
        """Experts in every so many-th layer."""
        if (index + 1) % self.config.moe_step:
            return self.dense(weights, index)
        return self.moe(weights, index)

    def routing(self) -> Routing:
        """Each expert is judged by itself."""
        return Routing(1, normalise=False, gating="sigmoid")

    @property
    def shared_width(self) -> int:
        """As wide as a routed one."""
        return self.expert_width
