"""From logits to the next token: llama.cpp's samplers, in its order and with its defaults.

Penalties, then top-k, top-p, min-p, temperature, and a draw. Knows nothing of text or models.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.random  # NumPy would import it at first use, and its Cython loses a Ctrl-C then
from numpy.typing import NDArray

from moestream.engine.options import SamplingParams
from moestream.errors import NumericError

Floats = NDArray[np.float64]

_COLDEST = 1e-6
"""Below it a temperature is 0: the likeliest token is certain, and a quotient could overflow."""
_MOST = 1e300
"""Of a score, by penalties: beyond it a difference, or its quotient, could overflow."""


class Constraint(Protocol):
    """What a sequence must be, such as text of a grammar: tells which tokens may come next."""

    def allowed(self) -> NDArray[np.bool_] | None:
        """Which ids may come next, (V,); None where any may."""

    def accept(self, token: int) -> None:
        """Go on to what may follow ``token``, which was chosen."""


class Sampler:
    """Chooses token after token; the same seed and logits give the same choices."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._random = np.random.default_rng(params.seed)

    def sample(self, logits: NDArray[np.float32], history: Sequence[int]) -> int:
        """Choose from logits (V,), given the tokens so far.

        Raises:
            NumericError: they are not all finite.
        """
        params = self.params
        if not np.isfinite(logits).all():
            raise NumericError(_told(logits))
        scores = _penalise(logits.astype(np.float64), history, params)
        if params.temperature < _COLDEST:
            return int(np.argmax(scores))
        ids = _top_k(scores, params.top_k)
        ids = _top_p(scores, ids, params.top_p)
        ids = _min_p(scores, ids, params.min_p)
        probabilities = _softmax(scores[ids] / params.temperature)
        # An explicit inverse CDF, so that one draw is one random number.
        cumulative = np.cumsum(probabilities)
        draw = self._random.random() * cumulative[-1]
        return int(ids[min(np.searchsorted(cumulative, draw, side="right"), len(ids) - 1)])


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


def _top_k(scores: Floats, k: int) -> NDArray[np.intp]:
    """Ids of the k largest scores, largest first; all of them for k = 0."""
    if 0 < k < len(scores):
        candidates = np.argpartition(-scores, k - 1)[:k]
        return candidates[np.lexsort((candidates, -scores[candidates]))]
    return np.argsort(-scores, kind="stable")


def _top_p(scores: Floats, ids: NDArray[np.intp], p: float) -> NDArray[np.intp]:
    """The shortest head of ``ids`` whose probabilities reach p."""
    if p >= 1:
        return ids
    reached = np.searchsorted(np.cumsum(_softmax(scores[ids])), p, side="left")
    return ids[: reached + 1]


def _min_p(scores: Floats, ids: NDArray[np.intp], p: float) -> NDArray[np.intp]:
    """Those at least p times as likely as the likeliest, which comes first."""
    if p <= 0:
        return ids
    kept: NDArray[np.intp] = ids[scores[ids] >= scores[ids[0]] + math.log(p)]
    return kept


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
