"""The lightning indexer: which positions of a long context are worth attending to.

Source: DeepSeek-V3.2-Exp (DeepSeek-AI, 2025); llama.cpp, src/models/deepseek32.cpp.
"""

from dataclasses import dataclass

from moestream.backends import Array, IndexQueries, RopeStyle
from moestream.errors import ModelFormatError
from moestream.layers.batch import Batch
from moestream.layers.norm import RMSNorm
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class IndexShape:
    """Queries of ``heads`` of ``dim`` numbers; ``most`` positions are chosen.

    ``eps`` is of the norm of keys, which takes the mean first. The first numbers are turned, or,
    ``turned_last``, the last.
    """

    heads: int
    dim: int
    most: int
    rope_style: RopeStyle
    eps: float = 1e-6
    turned_last: bool = False

    @property
    def kept(self) -> int:
        """Numbers of a position that are kept."""
        return self.dim


def check_turned(weights: Weights, dim: int, rope: Rope) -> None:
    """See that keys of ``dim`` numbers have those that are turned.

    Raises:
        ModelFormatError: they are shorter.
    """
    turned = 2 * len(rope.frequencies)
    if dim < turned:
        raise ModelFormatError(
            f"{weights.file.path}: the indexer's keys have {dim} numbers, expected at least the "
            f"{turned} that are turned"
        )


class Indexer:
    """Keys of positions, and what asks for them: from the normed stream and narrow queries."""

    def __init__(
        self,
        weights: Weights,
        *,
        hidden_size: int,
        rank: int,
        shape: IndexShape,
        rope: Rope | None,
    ) -> None:
        self.backend = weights.backend
        self.shape, self.rope = shape, rope
        if rope is not None:
            check_turned(weights, shape.dim, rope)
        width = shape.heads * shape.dim
        self.attn_q = weights.matrix("indexer.attn_q_b.weight", width, rank)
        self.attn_k = weights.matrix("indexer.attn_k.weight", shape.dim, hidden_size)
        self.k_norm = RMSNorm(weights, "indexer.k_norm.weight", shape.dim, shape.eps, centred=True)
        self.proj = weights.matrix("indexer.proj.weight", shape.heads, hidden_size)

    def keys(self, x: Array, batch: Batch) -> Array:
        """What is kept of each row: (T, E) -> (T, 1, D)."""
        keys = self.k_norm(self.backend.linear(x, self.attn_k))
        return self._turn(keys[:, None], batch)

    def queries(self, x: Array, asked: Array, batch: Batch) -> IndexQueries:
        """What each row asks for: of the stream (T, E) and of narrow queries (T, rank)."""
        ops, shape = self.backend, self.shape
        queries = ops.linear(asked, self.attn_q).reshape(-1, shape.heads, shape.dim)
        scale = (shape.heads * shape.dim) ** -0.5
        weights = ops.linear(x, self.proj) * scale
        return IndexQueries(self._turn(queries, batch), weights, shape.most)

    def _turn(self, x: Array, batch: Batch) -> Array:
        if self.rope is None:
            return x
        ops, shape = self.backend, self.shape
        angles = batch.angles(self.rope)
        if not shape.turned_last:
            return ops.rope(x, *angles, shape.rope_style)
        plain, turned = ops.split(x, shape.dim - 2 * len(self.rope.frequencies))
        return ops.join(plain, ops.rope(turned, *angles, shape.rope_style))
