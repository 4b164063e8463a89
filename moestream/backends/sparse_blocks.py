"""Which blocks of positions a query attends to, where an indexer chooses whole ones.

The formula, in NumPy, for all backends, as in ``sparse``. A block's key is the mean of its
positions' keys, normed and turned to where the block begins. The positions after the last whole
block are always seen.

Source: llama.cpp, src/models/qwen4exp.cpp, whose choice goes on into a further block where the rest
is shorter than a block less one; the model's own code chooses none in part, and nor does this.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BlockKeys:
    """Blocks of ``size`` positions; ``angles`` gives cosines and sines of where they begin.

    ``weight`` (D,) and ``eps`` are of the norm.
    """

    size: int
    weight: Floats
    eps: float
    angles: Callable[[NDArray[np.int64]], tuple[Floats, Floats]]

    def pooled(self, keys: Floats) -> Floats:
        """Keys of whole blocks: (S, D) -> (S // size, D)."""
        count = len(keys) // self.size
        means = keys[: count * self.size].reshape(count, self.size, -1).mean(axis=1)
        square = np.mean(np.square(means), axis=-1, keepdims=True, dtype=np.float32)
        normed: Floats = means / np.sqrt(square + np.float32(self.eps)) * self.weight
        cos, sin = self.angles(np.arange(count) * self.size)
        half = cos.shape[1]
        a, b = normed[:, :half].copy(), normed[:, half : 2 * half].copy()
        normed[:, :half], normed[:, half : 2 * half] = a * cos - b * sin, a * sin + b * cos
        return normed


def choose_blocks(
    queries: Floats, keys: Floats, start: int, most: int, blocks: BlockKeys
) -> NDArray[np.bool_]:
    """Positions of the blocks with the largest scores, ``most`` in all, and of the rest: (T, S).

    A score is the sum of the heads' products (T, HI, D) with a block's key, of which those below
    zero count as zero. Among equals, the earlier block is first.
    """
    pooled, size = blocks.pooled(keys), blocks.size
    seen = np.zeros((len(queries), len(keys)), np.bool_)
    for row, query in enumerate(queries):
        visible = start + row + 1
        whole = visible // size
        if whole <= most // size:
            seen[row, :visible] = True
            continue
        scores = np.maximum(query @ pooled[:whole].T, np.float32(0)).sum(axis=0)
        best = np.argsort(-scores, kind="stable")[: most // size]
        seen[row, : whole * size].reshape(whole, size)[best] = True
        seen[row, whole * size : visible] = True
    return seen
