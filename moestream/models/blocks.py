"""How a layer's mixer and its network are put together with the residual stream.

Knows nothing of what either computes, nor of architectures; ``decoder`` builds them.
"""

from collections.abc import Callable, Generator
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.layers.batch import Batch
from moestream.layers.ffn import FeedForward
from moestream.layers.moe import MoE
from moestream.layers.norm import RMSNorm
from moestream.layers.residual_attention import DepthReader, with_result
from moestream.layers.weights import Weights

Halves = Generator[None, None, Array]
"""A layer on its way: it rests once, after its mixer, and returns the stream after the layer."""


def finish(halves: Halves) -> Array:
    """Run what is left of a layer, and return the stream after it."""
    try:
        while True:
            next(halves)
    except StopIteration as ended:
        return ended.value


class Mixer(Protocol):
    """What lets a token see those before it: attention, or something recurrent."""

    @property
    def norm(self) -> Callable[[Array], Array]:
        """What it sees the residual stream through."""

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """What the block adds to the residual stream: (T, E) -> (T, E); brings the caches up."""


class Layer:
    """One transformer layer: a mixer, then experts or a dense network."""

    waits: ClassVar[bool] = False
    """Whether it waits for another machine."""

    def __init__(self, mixer: Mixer, ffn: FeedForward | MoE) -> None:
        self.mixer = mixer
        self.ffn = ffn

    def __call__(self, x: Array, batch: Batch, index: int) -> Array:
        """The residual stream after this layer: (T, E) -> (T, E)."""
        return finish(self.halves(x, batch, index))

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """Bring ``x`` (T, E) through this layer, in two steps."""
        ops = self.ffn.backend
        x = ops.add(x, self.mixer(x, batch, index))
        yield
        return ops.add(x, self.run_ffn(x, batch, index))

    def run_ffn(
        self,
        x: Array,
        batch: Batch,
        index: int,
        *,
        routed_by: Array | None = None,
        chosen: NDArray[np.int32] | None = None,
    ) -> Array:
        """What experts or the dense network add: (T, E) -> (T, E)."""
        if isinstance(self.ffn, MoE):
            return self.ffn(
                x, index, batch.on_route, more=batch.more, routed_by=routed_by, chosen=chosen
            )
        return self.ffn(x)


class ScaledLayer(Layer):
    """Both branches are scaled before they are added."""

    scale: float = 1.0

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``."""
        ops = self.ffn.backend
        x = ops.add(x, self.mixer(x, batch, index) * self.scale)
        yield
        return ops.add(x, self.run_ffn(x, batch, index) * self.scale)


class PostNormedLayer(Layer):
    """Norms after both branches too, before they are added."""

    def __init__(
        self,
        weights: Weights,
        hidden_size: int,
        eps: float,
        mixer: Mixer,
        ffn: FeedForward | MoE,
        names: tuple[str, str] = ("post_attention_norm.weight", "post_ffw_norm.weight"),
    ) -> None:
        super().__init__(mixer, ffn)
        self.post_attention_norm, self.post_ffw_norm = (
            RMSNorm(weights, name, hidden_size, eps) for name in names
        )

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``."""
        ops = self.ffn.backend
        x = ops.add(x, self.post_attention_norm(self.mixer(x, batch, index)))
        yield
        return ops.add(x, self.post_ffw_norm(self.run_ffn(x, batch, index)))


class ParallelLayer(Layer):
    """Mixer and network see the same stream."""

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``: all of it is the second, so that no row waits as two."""
        yield
        ops = self.ffn.backend
        mixed = self.mixer(x, batch, index)
        return ops.add(ops.add(x, self.run_ffn(x, batch, index)), mixed)


class Streams(Protocol):
    """What a branch reads of several streams and writes to them; see ``HyperConnection``."""

    def logits(self, streams: Array) -> Array:
        """What both go by: (T, S, E) -> (T, ...)."""

    def read(self, streams: Array, logits: Array) -> Array:
        """(T, S, E) -> (T, E)."""

    def write(self, streams: Array, added: Array, logits: Array) -> Array:
        """(T, S, E), (T, E) -> (T, S, E)."""


class HyperLayer(Layer):
    """Both branches read of several streams, and write to them: (T, S, E) -> (T, S, E)."""

    def __init__(
        self,
        mixer: Mixer,
        ffn: FeedForward | MoE,
        around_mixer: Streams,
        around_ffn: Streams,
    ) -> None:
        super().__init__(mixer, ffn)
        self.around_mixer, self.around_ffn = around_mixer, around_ffn

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``."""
        around = self.around_mixer
        logits = around.logits(x)
        x = around.write(x, self.mixer(around.read(x, logits), batch, index), logits)
        yield
        around = self.around_ffn
        logits = around.logits(x)
        return around.write(x, self.run_ffn(around.read(x, logits), batch, index), logits)


class BankedLayer(Layer):
    """Both branches read of all that was banked, and add to the last: (T, N, E) -> (T, N, E).

    Where a layer ``banks``, there is one more row after it.
    """

    def __init__(
        self,
        mixer: Mixer,
        ffn: FeedForward | MoE,
        before_mixer: DepthReader,
        before_ffn: DepthReader,
        *,
        banks: bool,
    ) -> None:
        super().__init__(mixer, ffn)
        self.before_mixer, self.before_ffn = before_mixer, before_ffn
        self.banks = banks

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``."""
        ops = self.ffn.backend
        mixed = self.mixer(self.before_mixer(x), batch, index)
        x = with_result(ops, x, mixed, bank=self.banks)
        yield
        return with_result(ops, x, self.run_ffn(self.before_ffn(x), batch, index), bank=False)


class MixerLayer:
    """A mixer alone."""

    waits: ClassVar[bool] = False
    ffn = None

    def __init__(self, mixer: Mixer) -> None:
        self.mixer = mixer

    def __call__(self, x: Array, batch: Batch, index: int) -> Array:
        """The residual stream after this layer: (T, E) -> (T, E)."""
        added: Array = x + self.mixer(x, batch, index)
        return added

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``: all of it is the first."""
        x = self(x, batch, index)
        yield
        return x


class NetworkLayer(Layer):
    """Experts or a dense network alone."""

    def __init__(self, ffn: FeedForward | MoE) -> None:
        self.ffn = ffn

    def halves(self, x: Array, batch: Batch, index: int) -> Halves:
        """See ``Layer.halves``: all of it is the second."""
        yield
        return self.ffn.backend.add(x, self.run_ffn(x, batch, index))


Block = Layer | MixerLayer
"""What a model is a list of."""
