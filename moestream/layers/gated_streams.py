"""Several residual streams whose mean a branch reads, each number by a gate of low rank.

Source: llama.cpp, src/models/qwen4exp.cpp; arXiv 2409.19606 (hyper-connections).
"""

from dataclasses import dataclass

from moestream.backends import Array
from moestream.layers.norm import UnweightedRMSNorm
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class GatedShape:
    """So many ``streams`` of rows of ``size``; gates are of ``rank``, ``eps`` is of the norms."""

    streams: int
    size: int
    rank: int
    eps: float


class StreamNorm:
    """Each stream by its own root mean square and weights: (T, S, E) -> (T, S, E)."""

    def __init__(self, weights: Weights, name: str, shape: GatedShape) -> None:
        self._unit = UnweightedRMSNorm(weights.backend, shape.size, shape.eps)
        flat = weights.vector(name, shape.streams * shape.size)
        self._weight = flat.reshape(shape.streams, shape.size)

    def __call__(self, streams: Array) -> Array:
        """Normalise."""
        return self._unit(streams) * self._weight


class GatedReader:
    """One row of several streams: (T, S, E) -> (T, E)."""

    def __init__(self, weights: Weights, name: str, shape: GatedShape) -> None:
        """Load the norm and both matrices of the gates."""
        self.backend, self.shape = weights.backend, shape
        wide = shape.streams * shape.size
        self.norm = StreamNorm(weights, f"{name}_norm.weight", shape)
        self.down = weights.matrix(f"{name}_down.weight", shape.rank, wide)
        self.up = weights.matrix(f"{name}_up.weight", wide, shape.rank)

    def logits(self, streams: Array) -> Array:
        """What is read from and written by: the normed streams, (T, S, E) -> (T, S * E)."""
        return self.norm(streams).reshape(len(streams), -1)

    def read(self, streams: Array, logits: Array) -> Array:
        """The mean of the normed streams, by their gates: (T, S, E) -> (T, E)."""
        ops, shape = self.backend, self.shape
        narrow = ops.linear(logits, self.down) * (1 / shape.streams)
        gates = ops.linear(ops.sigmoid_scale(narrow, narrow), self.up)
        gated = ops.sigmoid_scale(logits, gates).reshape(streams.shape)
        total = gated[:, 0]
        for i in range(1, shape.streams):
            total = total + gated[:, i]
        return total * (1 / shape.streams)

    def __call__(self, streams: Array) -> Array:
        """The same of streams alone."""
        return self.read(streams, self.logits(streams))


class GatedConnection(GatedReader):
    """What a branch reads, and how its result is added to each stream."""

    def __init__(self, weights: Weights, name: str, shape: GatedShape) -> None:
        """Load what a result is scaled by, too."""
        super().__init__(weights, name, shape)
        wide = shape.streams * shape.size
        self.inject = weights.matrix(f"{name}_inject.weight", shape.streams, wide)
        self.twos = self.backend.zeros((shape.streams,)) + 2

    def write(self, streams: Array, added: Array, logits: Array) -> Array:
        """The streams with a branch's result, 0 to 2 times: (T, S, E), (T, E) -> (T, S, E)."""
        ops = self.backend
        scaled = ops.linear(logits, self.inject) * (1 / self.shape.streams)
        return streams + added[:, None] * ops.sigmoid_scale(self.twos, scaled)[..., None]
