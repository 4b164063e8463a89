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

    ``bias`` is added to the scores of some ids; what ``constraint`` does not allow has no chance.
    """

    def __init__(
        self,
        params: SamplingParams,
        *,
        bias: Mapping[int, float] | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        self.params = params
        self._bias = bias or {}
        self._constraint = constraint
        self._random = np.random.default_rng(params.seed)

    def sample(self, logits: NDArray[np.float32], history: Sequence[int]) -> int:
        """Choose from logits (V,), given the tokens so far.

        Raises:
            NumericError: they are not all finite, or none is allowed.
        """
        if not np.isfinite(logits).all():
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
        if self._bias:
            scores = scores.astype(np.float64)
            ids = [id for id in self._bias if 0 <= id < len(scores)]
            scores[ids] += [self._bias[id] for id in ids]
        allowed = None if self._constraint is None else self._constraint.allowed()
        if allowed is not None:
            if not allowed.any():
                raise NumericError("nothing may come next: the grammar has no way on from here")
            scores = np.where(allowed, scores, -np.inf)
        return scores

    def _choose(self, scores: Scores) -> int:
        params = self.params
        if params.temperature < _COLDEST:
            return int(np.argmax(scores))
        ids = _top_k(scores, params.top_k)
        kept = scores[ids].astype(np.float64)  # largest first
        kept = _top_p(kept, params.top_p)
        kept = _min_p(kept, params.min_p)
        # An explicit inverse CDF, so that one draw is one random number.
        cumulative = np.cumsum(_softmax(kept / params.temperature))
        draw = self._random.random() * cumulative[-1]
        return int(ids[min(np.searchsorted(cumulative, draw, side="right"), len(kept) - 1)])


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
        return np.argpartition(-scores, k - 1)[:k]
    maxima = scores[: groups * _GROUP].reshape(groups, _GROUP).max(axis=1)
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
