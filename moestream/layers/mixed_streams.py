"""Several residual streams that are mixed with each other where a branch writes to them.

Source: arXiv 2512.24880 (manifold-constrained hyper-connections); llama.cpp,
src/models/glm5-next.cpp.
"""

from moestream.backends import Array
from moestream.layers.hyper import HyperShape, StreamReader
from moestream.layers.norm import UnweightedRMSNorm
from moestream.layers.weights import Weights


class MixedConnection(StreamReader):
    """What a branch reads, how its result is added to each stream, and how streams are mixed.

    A stream goes to all others by shares that Sinkhorn's iterations make.
    """

    def __init__(self, weights: Weights, name: str, shape: HyperShape, *, iterations: int) -> None:
        """Load the matrix of all logits, and what scales each kind and is added."""
        self.backend, self.shape, self.iterations = weights.backend, shape, iterations
        size = shape.streams * shape.size
        rows = (2 + shape.streams) * shape.streams
        self.norm = UnweightedRMSNorm(self.backend, size, shape.eps)
        self.mix = weights.matrix(f"{name}_fn.weight", rows, size)
        self.scale = weights.vector(f"{name}_scale.weight", 3)
        self.base = weights.vector(f"{name}_base.weight", rows)
        self.ones = self.backend.zeros((shape.streams,)) + 1

    def write(self, streams: Array, added: Array, logits: Array) -> Array:
        """The streams, mixed, with a branch's result: (T, S, E), (T, E) -> (T, S, E)."""
        count = self.shape.streams
        shares = self.sigmoid(logits, 1) * self.shape.most
        mixing = logits[:, 2 * count :] * self.scale[2:3] + self.base[2 * count :]
        mixing = self.backend.sinkhorn(
            mixing.reshape(-1, count, count), self.iterations, self.shape.least
        )
        total = added[:, None] * shares[..., None]
        for i in range(count):
            total = total + streams[:, i : i + 1] * mixing[:, i, :, None]
        return total
