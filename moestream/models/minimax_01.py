"""MiniMax-01 and M1.

Source: arXiv 2501.08313; llama.cpp, src/models/minimax-01.cpp.
"""

from dataclasses import dataclass

from moestream.backends import Array
from moestream.layers.batch import Batch
from moestream.layers.cache import StateShape
from moestream.layers.ffn import FeedForward
from moestream.layers.lightning import LightningAttention, LightningShape
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.blocks import Halves, Layer, Mixer
from moestream.models.config import ModelConfig
from moestream.models.hybrid import Hybrid
from moestream.models.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniMax01Config(ModelConfig):
    """Layers that do not attend have lightning attention."""

    @property
    def lightning(self) -> LightningShape:
        """Of as many heads as attention has."""
        return LightningShape(self.num_heads, self.head_dim)

    def recurrent_state(self, layer: int) -> StateShape:
        """The recurrence's."""
        return self.lightning.state()


class NormedStreamLayer(Layer):
    """What is added is added to the normed stream, scaled, and not to the stream itself."""

    def __init__(self, mixer: Mixer, ffn: FeedForward | MoE, scale: float) -> None:
        super().__init__(mixer, ffn)
        self.scale = scale

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``."""
        ops = self.ffn.backend
        x = ops.add(self.mixer(x, batch, index), self.mixer.norm(x) * self.scale)
        yield
        return ops.add(self.run_ffn(x, batch, index), self.ffn.norm(x) * self.scale)


class MiniMax01(Hybrid):
    """Lightning attention with plain attention here and there, and experts."""

    rope_style = "half"
    norm_topk_prob = True
    attends_every = 8
    config_type = MiniMax01Config
    config: MiniMax01Config

    @classmethod
    def read_own(cls, keys: Keys) -> dict[str, object]:
        """Add what the stream grows by."""
        return super().read_own(keys) | {"residual_scale": keys.number("residual_scale")}

    def layer(self, weights: Weights, index: int) -> NormedStreamLayer:
        """One layer around its norms."""
        mixer = self.mixer(weights, index)
        return NormedStreamLayer(mixer, self.ffn(weights, index), self.config.residual_scale)

    def recurrent(self, weights: Weights, index: int) -> LightningAttention:
        """Lightning attention, whose decays are slower the deeper the layer."""
        config = self.config
        return LightningAttention(
            weights,
            hidden_size=config.hidden_size,
            shape=config.lightning,
            slope_scale=1 - index / max(config.num_layers - 1, 1) + 1e-5,
            eps=config.rms_norm_eps,
        )
