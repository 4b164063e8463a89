"""The largest of very many numbers, found without sorting all of them."""

import numpy as np
import numpy.random  # NumPy would import it at first use, and its Cython loses a Ctrl-C then
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = NDArray[np.float32] | NDArray[np.float64]

_GROUP = 64
"""Scores of which the largest is looked for at once."""


def largest(scores: Scores, k: int) -> NDArray[np.intp]:
    """Ids of the k largest scores, largest first, the lower id first among equals; all for k = 0.

    What is not allowed, minus infinity, is none of them.
    """
    if not 0 < k < len(scores):
        ids = np.argsort(-scores, kind="stable")
    else:
        candidates = _candidates(scores, k)
        ids = candidates[np.lexsort((candidates, -scores[candidates]))][:k]
    return ids[: np.count_nonzero(scores[ids] > -np.inf)]


def _candidates(scores: Scores, k: int) -> NDArray[np.intp]:
    """Ids among which the k largest are.

    The k-th largest of the maxima of groups is a bound that at least k scores reach: to find it is
    many times quicker than a partition of all, and little lies above it.
    """
    groups = len(scores) // _GROUP
    if groups <= k:
        return np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
    maxima = scores[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    return np.flatnonzero(scores >= np.partition(maxima, groups - k)[groups - k])


def softmax(scores: Floats) -> Floats:
    """Chances in proportion to the exponentials; what overflows in between is no chance."""
    exponentials: Floats = np.exp(scores - scores.max())
    total: np.float64 = exponentials.sum()
    return exponentials / total
