"""MiniMax-01 and M1.

Source: arXiv 2501.08313; llama.cpp, src/models/minimax-01.cpp.
"""

from dataclasses import dataclass

from moestream.backends import Array
from moestream.layers.attention import Attention
from moestream.layers.batch import Batch
from moestream.layers.cache import StateShape
from moestream.layers.ffn import FeedForward
from moestream.layers.lightning import LightningAttention, LightningShape
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.blocks import Layer
from moestream.models.config import ModelConfig
from moestream.models.decoder import Decoder
from moestream.models.keys import Keys

_INTERVAL = 8
"""Every eighth layer attends, where the file does not say otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniMax01Config(ModelConfig):
    """A layer without key/value heads has lightning attention; the stream grows by the scale."""

    residual_scale: float

    @property
    def lightning(self) -> LightningShape:
        """Of as many heads as attention has."""
        return LightningShape(self.num_heads, self.head_dim)

    def state_shapes(self) -> tuple[StateShape, ...]:
        """Keys and values where a layer attends, else a recurrence's state."""
        attended, recurrent = ModelConfig.state_shapes(self), self.lightning.state()
        return tuple(
            shape if heads else recurrent
            for shape, heads in zip(attended, self.kv_heads, strict=True)
        )


class NormedStreamLayer(Layer):
    """What is added is added to the normed stream, scaled, and not to the stream itself."""

    def __init__(
        self, mixer: Attention | LightningAttention, ffn: FeedForward | MoE, scale: float
    ) -> None:
        super().__init__(mixer, ffn)
        self.mixer_norm, self.scale = mixer.norm, scale

    def __call__(self, x: Array, batch: Batch, index: int) -> Array:
        """The residual stream after this layer: (T, E) -> (T, E)."""
        ops = self.ffn.backend
        x = ops.add(self.mixer(x, batch, index), self.mixer_norm(x) * self.scale)
        return ops.add(self.run_ffn(x, batch, index), self.ffn.norm(x) * self.scale)


class MiniMax01(Decoder):
    """Lightning attention with plain attention here and there, and experts."""

    rope_style = "half"
    norm_topk_prob = True
    config: MiniMax01Config

    @classmethod
    def read_config(cls, keys: Keys) -> MiniMax01Config:
        """Add which layers attend, and the scale."""
        keys.require(cls.supported)
        layers = keys.num_layers()
        heads = keys.per_layer(
            "attention.head_count_kv", layers, keys.count("attention.head_count")
        )
        recurrent = keys.recurrent_layers(layers, _INTERVAL)
        return MiniMax01Config.read(
            keys,
            kv_heads=tuple(0 if r else n for r, n in zip(recurrent, heads, strict=True)),
            residual_scale=keys.number("residual_scale"),
        )

    def layer(self, weights: Weights, index: int) -> NormedStreamLayer:
        """One layer around its norms."""
        mixer = self.mixer(weights, index)
        return NormedStreamLayer(mixer, self.ffn(weights, index), self.config.residual_scale)

    def mixer(self, weights: Weights, index: int) -> Attention | LightningAttention:
        """Lightning attention, whose decays are slower the deeper the layer."""
        config = self.config
        if config.kv_heads[index]:
            return self.attention(weights, index)
        return LightningAttention(
            weights,
            hidden_size=config.hidden_size,
            shape=config.lightning,
            slope_scale=1 - index / max(config.num_layers - 1, 1) + 1e-5,
            eps=config.rms_norm_eps,
        )
