"""Top-k, top-p, min-p, temperature and a draw, in this order, which is the usual one: at once.

What comes to the same step by step is ``chain``; here nothing is sorted or copied that need not be.
"""

import math

import numpy as np
from numpy.typing import NDArray

from moestream.engine.options import SamplingParams
from moestream.engine.sampling.largest import Floats, Scores, largest, softmax

COLDEST = 1e-6
"""Below it a temperature is 0: the likeliest token is certain, and a quotient could overflow."""
_ROUNDING = 1e-3
_WIDTHS = (4.0, 8.0, 16.0, math.inf)
"""How far below the largest score what can be drawn is looked for first."""


def choose(scores: Scores, params: SamplingParams, random: np.random.Generator) -> int:
    """The id of the token that is drawn from scores (V,)."""
    if params.temperature < COLDEST:
        return int(np.argmax(scores))
    draw = random.random()
    if not params.top_k:
        return _draw_of_all(scores, params, draw)
    ids = largest(scores, params.top_k)
    kept = _min_p(_top_p(scores[ids].astype(np.float64), params.top_p), params.min_p)
    weights = np.cumsum(softmax(kept / params.temperature))
    return drawn(ids, weights, draw * weights[-1])


def drawn(ids: NDArray[np.intp], weights: Floats, draw: float) -> int:
    """Of ids with cumulative weights, the one that a number between 0 and their sum falls on.

    An explicit inverse CDF, so that one draw is one random number.
    """
    return int(ids[min(int(np.searchsorted(weights, draw, side="right")), len(weights) - 1)])


def _top_p(scores: Floats, p: float) -> Floats:
    """The shortest head of falling scores whose probabilities reach p."""
    if p >= 1:
        return scores
    return scores[: np.searchsorted(np.cumsum(softmax(scores)), p, side="left") + 1]


def _min_p(scores: Floats, p: float) -> Floats:
    """Those at least p times as likely as the likeliest, which comes first."""
    if p <= 0:
        return scores
    return scores[: np.count_nonzero(scores >= scores[0] + math.log(p))]


def _draw_of_all(scores: Scores, params: SamplingParams, draw: float) -> int:
    """What top-k off comes to, without sorting all: the head that can be drawn is enough."""
    most = float(scores.max())
    # A little below: scores of 32 bits are compared as such, and cut off exactly in the end.
    floor = most + math.log(params.min_p) - _ROUNDING if params.min_p > 0 else -math.inf
    total = _mass(scores, most, 1.0) if params.top_p < 1 else 0.0
    for width in _WIDTHS:
        near = np.flatnonzero(scores >= max(floor, most - width))
        ids = near[np.lexsort((near, -scores[near]))]
        kept = scores[ids].astype(np.float64)  # largest first
        whole = most - width <= floor or width == math.inf
        if params.top_p < 1:
            reached = np.cumsum(np.exp(kept - most)) / total
            count = int(np.searchsorted(reached, params.top_p, side="left")) + 1
            if count > len(kept) and not whole:
                continue
            kept, whole = kept[:count], True
        kept = _min_p(kept, params.min_p)
        weights = np.cumsum(np.exp((kept - most) / params.temperature))
        target = draw * (weights[-1] if whole else _mass(scores, most, params.temperature))
        if whole or target < weights[-1]:
            return drawn(ids, weights, target)
    raise AssertionError("the widest head is the whole")


def _mass(scores: Scores, most: float, temperature: float) -> float:
    """The sum of all exponentials, the largest of which is 1."""
    with np.errstate(over="ignore", under="ignore"):  # minus infinity is no chance at all
        shares = np.exp((scores - scores.dtype.type(most)) / scores.dtype.type(temperature))
    return float(shares.sum(dtype=np.float64))
