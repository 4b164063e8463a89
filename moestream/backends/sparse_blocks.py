"""Which blocks of positions a query attends to, where an indexer chooses whole ones.

The formula, in NumPy but for products and exponentials, for all backends, as in ``sparse``. The
positions after the last whole block are always seen.

Source: llama.cpp, src/models/glm5-next.cpp, qwen4exp.cpp and minimax-m3.cpp. The choice in the
second goes on into a further block where the rest is shorter than a block less one; the model's own
code chooses none in part, and nor does this. In the third, a head chooses for itself, and the last
block is chosen whether it is whole or not.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends.maths import NUMPY, Floats, Maths


class BlockKeys(ABC):
    """Makes keys of blocks of ``size`` positions; of a position, ``kept`` numbers are known."""

    size: int
    kept: int

    @abstractmethod
    def pooled(self, keys: Floats, maths: Maths = NUMPY) -> Floats:
        """Keys of whole blocks: (S, kept) -> (S // size, D)."""


@dataclass(frozen=True, slots=True)
class TurnedMeans(BlockKeys):
    """Means, normed and turned to where the block begins, of which ``angles`` gives cos and sin.

    ``weight`` (D,) and ``eps`` are of the norm.
    """

    size: int
    kept: int
    weight: Floats
    eps: float
    angles: Callable[[NDArray[np.int64]], tuple[Floats, Floats]]

    def pooled(self, keys: Floats, maths: Maths = NUMPY) -> Floats:
        """See ``BlockKeys``."""
        count = len(keys) // self.size
        means = keys[: count * self.size].reshape(count, self.size, -1).mean(axis=1)
        square = np.mean(np.square(means), axis=-1, keepdims=True, dtype=np.float32)
        normed: Floats = means / np.sqrt(square + np.float32(self.eps)) * self.weight
        cos, sin = self.angles(np.arange(count) * self.size)
        half = cos.shape[1]
        a, b = normed[:, :half].copy(), normed[:, half : 2 * half].copy()
        normed[:, :half], normed[:, half : 2 * half] = a * cos - b * sin, a * sin + b * cos
        return normed


@dataclass(frozen=True, slots=True)
class GatedSums(BlockKeys):
    """Sums of keys, each coordinate by the softmax of gates that lie behind the keys.

    ``bias`` (size, D) is added to a gate by its place in the block.
    """

    size: int
    kept: int
    bias: Floats

    def pooled(self, keys: Floats, maths: Maths = NUMPY) -> Floats:
        """See ``BlockKeys``."""
        count, dim = len(keys) // self.size, self.kept // 2
        blocks = keys[: count * self.size].reshape(count, self.size, -1)
        gates = blocks[:, :, dim:] + self.bias
        gates -= gates.max(axis=1, keepdims=True)
        shares = maths.exponentials(gates)
        shared = np.multiply(shares, blocks[:, :, :dim], out=gates)  # may be large
        sums: Floats = shared.sum(axis=1) / shares.sum(axis=1)
        return sums


@dataclass(frozen=True, slots=True)
class BestOfBlocks:
    """A block of ``size`` positions is worth its best; the last ``local`` ones are chosen first."""

    size: int
    local: int


def choose_by_head(
    queries: Floats,
    keys: Floats,
    start: int,
    most: int,
    blocks: BestOfBlocks,
    maths: Maths = NUMPY,
) -> NDArray[np.bool_]:
    """Positions of the blocks with the largest products, ``most`` in all, by head: (T, HI, S).

    Among equals, the earlier block is first.
    """
    size, chosen = blocks.size, most // blocks.size
    seen = np.zeros((*queries.shape[:2], len(keys)), np.bool_)
    for row, query in enumerate(queries):
        visible = start + row + 1
        first = np.arange(0, visible, size)
        if len(first) <= chosen:
            seen[row, :, :visible] = True
            continue
        best = np.maximum.reduceat(
            maths.products(query, keys[:visible]), first, axis=1
        )  # (HI, blocks)
        best[:, max(len(first) - blocks.local, 0) :] = np.inf
        order = np.argsort(-best, axis=1, kind="stable")[:, :chosen]
        taken = np.zeros(best.shape, np.bool_)
        np.put_along_axis(taken, order, True, axis=1)
        seen[row, :, :visible] = np.repeat(taken, size, axis=1)[:, :visible]
    return seen


def choose_blocks(
    queries: Floats,
    weights: Floats,
    keys: Floats,
    start: int,
    most: int,
    blocks: BlockKeys,
    maths: Maths = NUMPY,
) -> NDArray[np.bool_]:
    """Positions of the blocks with the largest scores, ``most`` in all, and of the rest: (T, S).

    A score is the weighted sum of the heads' products (T, HI, D) with a block's key, of which those
    below zero count as zero. Among equals, the earlier block is first.
    """
    pooled, size = blocks.pooled(keys, maths), blocks.size
    seen = np.zeros((len(queries), len(keys)), np.bool_)
    for row, (query, weight) in enumerate(zip(queries, weights, strict=True)):
        visible = start + row + 1
        whole = visible // size
        if whole <= most // size:
            seen[row, :visible] = True
            continue
        scores = weighed(query, weight, pooled[:whole], maths)
        best = np.argsort(-scores, kind="stable")[: most // size]
        seen[row, : whole * size].reshape(whole, size)[best] = True
        seen[row, whole * size : visible] = True
    return seen


def weighed(query: Floats, weight: Floats, keys: Floats, maths: Maths) -> Floats:
    """The heads' products (HI, D) with keys (S, D), at least zero, by weights (HI,): (S,)."""
    products = maths.products(query, keys)
    np.maximum(products, np.float32(0), out=products)
    total: Floats = weight[0] * products[0]
    for head in range(1, len(weight)):
        total += weight[head] * products[head]
    return total
