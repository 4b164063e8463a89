"""Snowflake Arctic.

Source: llama.cpp, src/models/arctic.cpp.
"""

from moestream.backends import Array
from moestream.layers.batch import Batch
from moestream.layers.ffn import FeedForward
from moestream.layers.moe import MoE
from moestream.layers.weights import Weights
from moestream.models.blocks import Halves, Layer, Mixer
from moestream.models.decoder import Decoder


class ResidualLayer(Layer):
    """A dense network after attention; experts beside both, on the stream that entered."""

    def __init__(self, mixer: Mixer, ffn: FeedForward | MoE, dense: FeedForward) -> None:
        super().__init__(mixer, ffn)
        self.dense = dense

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``: all of it is the second, so that no row waits as two."""
        yield
        ops = self.ffn.backend
        mixed = ops.add(x, self.mixer(x, batch, index))
        mixed = ops.add(mixed, self.dense(mixed))
        return ops.add(self.run_ffn(x, batch, index), mixed)


class Arctic(Decoder):
    """Every layer has a dense network as wide as the stream, and experts."""

    rope_style = "interleaved"
    norm_topk_prob = True
    ffn_norm = "ffn_norm_exps.weight"

    def layer(self, weights: Weights, index: int) -> ResidualLayer:
        """One layer of three parts."""
        size, eps = self.config.hidden_size, self.config.rms_norm_eps
        dense = FeedForward(weights, hidden_size=size, width=size, eps=eps)
        return ResidualLayer(self.mixer(weights, index), self.ffn(weights, index), dense)
