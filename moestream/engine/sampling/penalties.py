"""Samplers that take from the scores of tokens which the text so far has: penalties, and DRY."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.engine.options import SamplingParams
from moestream.engine.sampling.breakers import Breakers
from moestream.engine.sampling.candidates import MOST, Candidates
from moestream.engine.sampling.largest import Floats

_LARGEST_POWER = 88.72
"""The logarithm of the largest factor by which a penalty grows: float32's, as in llama.cpp."""


def penalised(scores: Floats, history: Sequence[int], params: SamplingParams) -> Floats:
    """Scores (V,), changed in place where the history has a token."""
    ids, counts = _counted(history, params.repeat_last_n)
    if len(ids):
        scores[ids] = _less(scores[ids], counts, params)
    return scores


def penalties(candidates: Candidates, history: Sequence[int], params: SamplingParams) -> Candidates:
    """The same of candidates."""
    ids, counts = _counted(history, params.repeat_last_n)
    places, found = candidates.places(ids)
    scores = candidates.scores.astype(np.float64)
    scores[places] = _less(scores[places], counts[found], params)
    return candidates.rescored(scores)


def dry(
    candidates: Candidates, history: Sequence[int], params: SamplingParams, breakers: Breakers
) -> Candidates:
    """Take the more off a token, the longer the repetition is that it would go on with.

    Source: the sampler "don't repeat yourself" of text-generation-webui, as llama.cpp has it.
    """
    recent = np.asarray(_last(history, params.dry_penalty_last_n)[::-1], np.intp)
    allowed = params.dry_allowed_length
    limit = breakers.since(recent)
    if len(recent) <= allowed or limit < allowed:
        return candidates
    growth = math.log(params.dry_base)
    enough = allowed + math.ceil(_LARGEST_POWER / growth) if growth > 0 else allowed
    lengths = _repeated(recent, min(limit, enough))
    counts = lengths >= allowed
    ids, which = np.unique(recent[:-1][counts], return_inverse=True)
    longest = np.zeros(len(ids), np.intp)
    np.maximum.at(longest, which, lengths[counts])
    open_ = ~breakers.are_single(ids)
    ids, longest = ids[open_], longest[open_]
    places, found = candidates.places(ids)
    power = np.exp(np.minimum((longest[found] - allowed) * growth, _LARGEST_POWER))
    scores = candidates.scores.astype(np.float64)
    taken = np.minimum(params.dry_multiplier, MOST / np.exp(_LARGEST_POWER)) * power
    scores[places] = np.maximum(scores[places] - taken, -MOST)
    return candidates.rescored(scores)


def _repeated(recent: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """How many tokens before each are those at the end, of tokens that begin with the last: (N-1,).

    Place k is of the token k + 1 before the end; what comes after it there is what would go on.
    """
    lengths = np.zeros(len(recent) - 1, np.intp)
    alive = np.arange(1, len(recent))
    for length in range(most):
        alive = alive[alive + length < len(recent)]
        alive = alive[recent[alive + length] == recent[length]]
        if not len(alive):
            break
        lengths[alive - 1] += 1
    return lengths


def _last(history: Sequence[int], count: int) -> Sequence[int]:
    """The last tokens; all for -1, none for 0."""
    if count == 0:
        return ()
    return history if count == -1 else history[-count:]


def _counted(history: Sequence[int], last: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The last tokens, each once, and how often they are there."""
    return np.unique(np.asarray(_last(history, last), np.intp), return_counts=True)


def _less(seen: Floats, counts: NDArray[np.intp], params: SamplingParams) -> Floats:
    with np.errstate(over="ignore"):  # which is what the bounds are for
        divided, multiplied = seen / params.repeat_penalty, seen * params.repeat_penalty
        taken = counts * params.frequency_penalty + params.presence_penalty
    seen = np.where(seen > 0, divided, multiplied)
    less: Floats = np.clip(seen, -MOST, MOST) - np.clip(taken, -MOST, MOST)
    return less
