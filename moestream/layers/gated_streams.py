"""Several residual streams whose mean a branch reads, each number by a gate of low rank.

Source: llama.cpp, src/models/qwen4exp.cpp; arXiv 2409.19606 (hyper-connections).
"""

from dataclasses import dataclass, replace

from moestream.backends import Array
from moestream.backends.stream_gates import StreamGates
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
        self.backend = weights.backend
        wide = shape.streams * shape.size
        flat = weights.vector(f"{name}_norm.weight", wide)
        self.gates = StreamGates(
            norm=flat.reshape(shape.streams, shape.size),
            ones=self.backend.zeros((shape.size,)) + 1,
            eps=shape.eps,
            down=weights.matrix(f"{name}_down.weight", shape.rank, wide),
            up=weights.matrix(f"{name}_up.weight", wide, shape.rank),
            inject=None,
        )

    def logits(self, streams: Array) -> tuple[Array, Array | None]:
        """What is read, and what a result is scaled by: (T, S, E) -> (T, E), (T, S)."""
        return self.backend.read_streams(streams, self.gates)

    def read(self, streams: Array, logits: tuple[Array, Array | None]) -> Array:
        """The mean of the normed streams, by their gates: (T, S, E) -> (T, E)."""
        return logits[0]

    def __call__(self, streams: Array) -> Array:
        """The same of streams alone."""
        return self.logits(streams)[0]


class GatedConnection(GatedReader):
    """What a branch reads, and how its result is added to each stream."""

    def __init__(self, weights: Weights, name: str, shape: GatedShape) -> None:
        """Load what a result is scaled by, too."""
        super().__init__(weights, name, shape)
        wide = shape.streams * shape.size
        inject = weights.matrix(f"{name}_inject.weight", shape.streams, wide)
        self.gates = replace(self.gates, inject=inject)

    def write(self, streams: Array, added: Array, logits: tuple[Array, Array]) -> Array:
        """The streams with a branch's result, 0 to 2 times: (T, S, E), (T, E) -> (T, S, E)."""
        return self.backend.write_streams(streams, added, logits[1])
