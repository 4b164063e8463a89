"""From logits to the next token: llama.cpp's samplers, in its order and with its defaults.

Penalties, then top-k, top-p, min-p, temperature, and a draw. Knows nothing of text or models.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.random  # NumPy would import it at first use, and its Cython loses a Ctrl-C then
from numpy.typing import NDArray

from moestream.engine.options import SamplingParams
from moestream.errors import NumericError

Floats = NDArray[np.float64]
Scores = NDArray[np.float32] | NDArray[np.float64]

_COLDEST = 1e-6
"""Below it a temperature is 0: the likeliest token is certain, and a quotient could overflow."""
_GROUP = 64
"""Scores of which the largest is looked for at once."""
_ROUNDING = 1e-3
_WIDTHS = (4.0, 8.0, 16.0, math.inf)
"""How far below the largest score what can be drawn is looked for first."""
_MOST = 1e300
"""Of a score, by penalties: beyond it a difference, or its quotient, could overflow."""


class Constraint(Protocol):
    """What a sequence must be, such as text of a grammar: tells which tokens may come next."""

    def allowed(self) -> NDArray[np.bool_] | None:
        """Which ids may come next, (V,); None where any may."""

    def accept(self, token: int) -> None:
        """Go on to what may follow ``token``, which was chosen."""


class Sampler:
    """Chooses token after token; the same seed and logits give the same choices.

    ``bias`` is added to the scores of ids of the vocabulary; what ``constraint`` does not allow
    has no chance.
    """

    def __init__(
        self,
        params: SamplingParams,
        *,
        bias: Mapping[int, float] | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        self.params = params
        self._biased = np.array(sorted(bias or ()), np.int64)
        self._bias = np.array([(bias or {})[id] for id in self._biased.tolist()], np.float64)
        self._constraint = constraint
        self._random = np.random.default_rng(params.seed)

    def sample(self, logits: NDArray[np.float32], history: Sequence[int]) -> int:
        """Choose from logits (V,), given the tokens so far.

        Raises:
            NumericError: they are not all finite, or none is allowed.
        """
        if not (np.isfinite(logits.max()) and np.isfinite(logits.min())):  # NaN is both of them
            raise NumericError(_told(logits))
        token = self._choose(self._scores(logits, history))
        if self._constraint is not None:
            self._constraint.accept(token)
        return token

    def _scores(self, logits: NDArray[np.float32], history: Sequence[int]) -> Scores:
        """What is chosen by: the logits themselves, or float64 where something changes them."""
        params = self.params
        scores: Scores = logits
        if params.penalises:
            scores = _penalise(logits.astype(np.float64), history, params)
        if len(self._biased):
            scores = scores.astype(np.float64)
            scores[self._biased] += self._bias
        allowed = None if self._constraint is None else self._constraint.allowed()
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        if scores is not logits and not scores.max() > -np.inf:
            raise NumericError(
                "nothing may come next: the grammar and the biases leave no token that is allowed"
            )
        return scores

    def _choose(self, scores: Scores) -> int:
        params = self.params
        if params.temperature < _COLDEST:
            return int(np.argmax(scores))
        draw = self._random.random()
        if not params.top_k:
            return _draw_of_all(scores, params, draw)
        ids = _top_k(scores, params.top_k)
        kept = _min_p(_top_p(scores[ids].astype(np.float64), params.top_p), params.min_p)
        weights = np.cumsum(_softmax(kept / params.temperature))
        return _drawn(ids, weights, draw * weights[-1])


def log_probabilities(
    logits: NDArray[np.float32], token: int, most: int
) -> tuple[float, list[tuple[int, float]]]:
    """The logarithm of a token's chance, and the likeliest ``most`` with theirs, from logits (V,).

    They are the model's own, before penalties, temperature and what cuts off.
    """
    ids = _top_k(logits, most) if most else np.empty(0, np.intp)
    scores = logits.astype(np.float64)
    largest = scores.max()
    total = largest + math.log(np.exp(scores - largest).sum())
    return float(scores[token] - total), [(int(id), float(scores[id] - total)) for id in ids]


def _penalise(scores: Floats, history: Sequence[int], params: SamplingParams) -> Floats:
    window = history if params.repeat_last_n == -1 else history[-params.repeat_last_n :]
    if params.repeat_last_n == 0 or len(window) == 0:
        return scores
    ids, counts = np.unique(np.asarray(window), return_counts=True)
    seen = scores[ids]
    with np.errstate(over="ignore"):  # which is what the bounds are for
        divided, multiplied = seen / params.repeat_penalty, seen * params.repeat_penalty
        taken = counts * params.frequency_penalty + params.presence_penalty
    seen = np.where(seen > 0, divided, multiplied)
    scores[ids] = np.clip(seen, -_MOST, _MOST) - np.clip(taken, -_MOST, _MOST)
    return scores


def _top_k(scores: Scores, k: int) -> NDArray[np.intp]:
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


def _top_p(scores: Floats, p: float) -> Floats:
    """The shortest head of falling scores whose probabilities reach p."""
    if p >= 1:
        return scores
    return scores[: np.searchsorted(np.cumsum(_softmax(scores)), p, side="left") + 1]


def _min_p(scores: Floats, p: float) -> Floats:
    """Those at least p times as likely as the likeliest, which comes first."""
    if p <= 0:
        return scores
    return scores[: np.count_nonzero(scores >= scores[0] + math.log(p))]


def _draw_of_all(scores: Scores, params: SamplingParams, draw: float) -> int:
    """What top-k off comes to, without sorting all: the head that can be drawn is enough."""
    largest = float(scores.max())
    # A little below: scores of 32 bits are compared as such, and cut off exactly in the end.
    floor = largest + math.log(params.min_p) - _ROUNDING if params.min_p > 0 else -math.inf
    total = _mass(scores, largest, 1.0) if params.top_p < 1 else 0.0
    for width in _WIDTHS:
        near = np.flatnonzero(scores >= max(floor, largest - width))
        ids = near[np.lexsort((near, -scores[near]))]
        kept = scores[ids].astype(np.float64)  # largest first
        whole = largest - width <= floor or width == math.inf
        if params.top_p < 1:
            reached = np.cumsum(np.exp(kept - largest)) / total
            count = int(np.searchsorted(reached, params.top_p, side="left")) + 1
            if count > len(kept) and not whole:
                continue
            kept, whole = kept[:count], True
        kept = _min_p(kept, params.min_p)
        weights = np.cumsum(np.exp((kept - largest) / params.temperature))
        drawn = draw * (weights[-1] if whole else _mass(scores, largest, params.temperature))
        if whole or drawn < weights[-1]:
            return _drawn(ids, weights, drawn)
    raise AssertionError("the widest head is the whole")


def _mass(scores: Scores, largest: float, temperature: float) -> float:
    """The sum of all exponentials, the largest of which is 1."""
    with np.errstate(over="ignore", under="ignore"):  # minus infinity is no chance at all
        shares = np.exp((scores - scores.dtype.type(largest)) / scores.dtype.type(temperature))
    return float(shares.sum(dtype=np.float64))


def _drawn(ids: NDArray[np.intp], weights: Floats, drawn: float) -> int:
    """Of ids with cumulative weights, the one that a number between 0 and their sum falls on.

    An explicit inverse CDF, so that one draw is one random number.
    """
    return int(ids[min(int(np.searchsorted(weights, drawn, side="right")), len(weights) - 1)])


def _softmax(scores: Floats) -> Floats:
    exponentials: Floats = np.exp(scores - scores.max())
    total: np.float64 = exponentials.sum()
    return exponentials / total


def _told(logits: NDArray[np.float32]) -> str:
    wrong = int(np.count_nonzero(~np.isfinite(logits)))
    return (
        f"The model's numbers are not finite: {wrong:,} of {len(logits):,} logits are NaN or "
        "infinite. Its file is damaged, or it computes numbers too large; get the file again, or "
        "another quantisation of it."
    )
