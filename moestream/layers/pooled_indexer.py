"""An indexer that scores blocks of positions, by keys pooled with gates, and chooses whole ones.

Source: llama.cpp, src/models/glm5-next.cpp.
"""

from dataclasses import dataclass, replace
from typing import Any

from moestream.backends import Array, IndexQueries
from moestream.backends.sparse_blocks import GatedSums
from moestream.layers.batch import Batch
from moestream.layers.indexer import Indexer, IndexShape
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class PooledIndexShape(IndexShape):
    """Blocks of ``size`` positions."""

    size: int = 1

    @property
    def kept(self) -> int:
        """A key, and its gate."""
        return 2 * self.dim


class PooledIndexer(Indexer):
    """What is kept of a position is its key, and how much of it goes into its block's."""

    shape: PooledIndexShape

    def __init__(self, weights: Weights, *, shape: PooledIndexShape, **common: Any) -> None:
        """Load the gates, too; ``common`` is what ``Indexer`` takes."""
        super().__init__(weights, shape=shape, **common)
        hidden = common["hidden_size"]
        self.gate = weights.matrix("indexer_compressor_gate.weight", shape.dim, hidden)
        bias = weights.table("indexer_compressor_ape.weight", shape.size, shape.dim)
        self.blocks = GatedSums(shape.size, shape.kept, self.backend.to_numpy(bias))

    def keys(self, x: Array, batch: Batch) -> Array:
        """What is kept of each row: (T, E) -> (T, 1, 2 * D)."""
        gates = self.backend.linear(x, self.gate)
        return self.backend.join(super().keys(x, batch), gates[:, None])

    def queries(self, x: Array, asked: Array, batch: Batch) -> IndexQueries:
        """See ``Indexer.queries``."""
        return replace(super().queries(x, asked, batch), blocks=self.blocks)
