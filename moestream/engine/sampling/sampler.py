"""Chooses one token after another of a sequence, as was asked for."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moestream.engine.options import SamplingParams
from moestream.engine.sampling import plain
from moestream.engine.sampling.breakers import NO_BREAKERS, Breakers
from moestream.engine.sampling.candidates import Candidates
from moestream.engine.sampling.chain import plain_params, steps
from moestream.engine.sampling.largest import Scores, largest
from moestream.engine.sampling.mirostat import Mirostat
from moestream.engine.sampling.penalties import penalised
from moestream.errors import NumericError, RequestError


class Constraint(Protocol):
    """What a sequence must be, such as text of a grammar: tells which tokens may come next."""

    def allowed(self) -> NDArray[np.bool_] | None:
        """Which ids may come next, (V,); None where any may."""

    def accept(self, token: int) -> None:
        """Go on to what may follow ``token``, which was chosen."""


class Sampler:
    """Chooses token after token; the same seed and logits give the same choices.

    ``end_ids`` have no chance where ends are to be ignored, unless there is a ``constraint``: what
    it does not allow has none. ``breakers`` end what DRY takes for a repetition.
    """

    def __init__(
        self,
        params: SamplingParams,
        *,
        end_ids: frozenset[int] = frozenset(),
        constraint: Constraint | None = None,
        breakers: Breakers = NO_BREAKERS,
    ) -> None:
        bias = dict(params.logit_bias)
        if params.ignore_eos and constraint is None:
            bias |= dict.fromkeys(end_ids, -math.inf)
        self._biased = np.array(sorted(bias), np.int64)
        self._bias = np.array([bias[id] for id in self._biased.tolist()], np.float64)
        self._constraint = constraint
        self._random = np.random.default_rng(params.seed)
        self._plain = plain_params(params)
        self._steps = [] if self._plain else steps(params, self._random, breakers)
        self._mirostat = Mirostat(params) if params.mirostat else None

    def sample(self, logits: NDArray[np.float32], history: Sequence[int]) -> int:
        """Choose from logits (V,), given the tokens so far.

        Raises:
            NumericError: they are not all finite, or none is allowed.
            RequestError: a bias is of no token.
        """
        if not (np.isfinite(logits.max()) and np.isfinite(logits.min())):  # NaN is both of them
            raise NumericError(_told(logits))
        scores = self._scores(logits, history)
        token = (
            plain.choose(scores, self._plain, self._random)
            if self._plain is not None
            else self._choose(Candidates.of(scores), history)
        )
        if self._constraint is not None:
            self._constraint.accept(token)
        return token

    def _scores(self, logits: NDArray[np.float32], history: Sequence[int]) -> Scores:
        """What is chosen by: the logits themselves, or float64 where something changes them."""
        scores: Scores = logits
        if self._plain is not None and self._plain.penalises:
            scores = penalised(logits.astype(np.float64), history, self._plain)
        if len(self._biased):
            if self._biased[-1] >= len(logits):
                known = f"there is no token {self._biased[-1]} here, but 0 to {len(logits) - 1}"
                raise RequestError(f"logit_bias: {known}", param="logit_bias")
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

    def _choose(self, candidates: Candidates, history: Sequence[int]) -> int:
        for step in self._steps:
            candidates = step(candidates, history)
        if self._mirostat is not None:
            return self._mirostat.draw(candidates, self._random)
        weights = np.cumsum(candidates.shares(), dtype=np.float64)
        return plain.drawn(candidates.ids, weights, self._random.random() * weights[-1])


def log_probabilities(
    logits: NDArray[np.float32], token: int, most: int
) -> tuple[float, list[tuple[int, float]]]:
    """The logarithm of a token's chance, and the likeliest ``most`` with theirs, from logits (V,).

    They are the model's own, before penalties, temperature and what cuts off.
    """
    ids = largest(logits, most) if most else np.empty(0, np.intp)
    scores = logits.astype(np.float64)
    greatest = scores.max()
    total = greatest + math.log(np.exp(scores - greatest).sum())
    return float(scores[token] - total), [(int(id), float(scores[id] - total)) for id in ids]


def _told(logits: NDArray[np.float32]) -> str:
    wrong = int(np.count_nonzero(~np.isfinite(logits)))
    return (
        f"The model's numbers are not finite: {wrong:,} of {len(logits):,} logits are NaN or "
        "infinite. Its file is damaged, or it computes numbers too large; get the file again, or "
        "another quantisation of it."
    )
