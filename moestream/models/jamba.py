"""AI21's Jamba.

Source: arXiv 2403.19887; llama.cpp, src/models/jamba.cpp.
"""

from dataclasses import dataclass

from moestream.layers.cache import StateShape
from moestream.layers.mamba import Mamba, MambaShape
from moestream.layers.weights import Weights
from moestream.models.blocks import Mixer
from moestream.models.config import ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class JambaConfig(ModelConfig):
    """A layer without key/value heads is of shape ``mamba``."""

    mamba: MambaShape

    def state_shapes(self) -> tuple[StateShape, ...]:
        """Keys and values where a layer attends, else the recurrence's state."""
        attended, recurrent = ModelConfig.state_shapes(self), self.mamba.state()
        return tuple(
            shape if heads else recurrent
            for shape, heads in zip(attended, self.kv_heads, strict=True)
        )


class Jamba(Decoder):
    """Mamba with attention without positions here and there; experts in some layers."""

    rope_style = "half"
    norm_topk_prob = False
    dense_without_router = True
    config: JambaConfig

    @classmethod
    def read_config(cls, keys: Keys) -> JambaConfig:
        """Add what Mamba needs."""
        keys.require(cls.supported)
        shape = MambaShape(
            inner=keys.size("ssm.inner_size"),
            size=keys.size("ssm.state_size"),
            rank=keys.size("ssm.time_step_rank"),
            conv_width=keys.size("ssm.conv_kernel"),
        )
        return JambaConfig.read(keys, mamba=shape)

    def mixer(self, weights: Weights, index: int) -> Mixer:
        """Attention where a layer has key/value heads."""
        config = self.config
        if config.kv_heads[index]:
            return self.attention(weights, index, turned=False)
        eps = config.rms_norm_eps
        return Mamba(weights, hidden_size=config.hidden_size, shape=config.mamba, eps=eps)
