"""Samplers that leave tokens out: each gets candidates, and returns those that stay."""

import math

import numpy as np

from moestream.engine.sampling.candidates import Candidates
from moestream.engine.sampling.largest import largest

MOST_XTC_THRESHOLD = 0.5
"""Above it no two tokens can be likely enough."""


def top_k(candidates: Candidates, k: int) -> Candidates:
    """The k likeliest."""
    return candidates.kept(np.sort(largest(candidates.scores, k)))


def top_p(candidates: Candidates, p: float) -> Candidates:
    """The fewest of the likeliest that reach p together."""
    return candidates.reaching(p, candidates.scores)


def min_p(candidates: Candidates, p: float) -> Candidates:
    """Those at least p times as likely as the likeliest."""
    return candidates.kept(candidates.scores >= candidates.scores.max() + math.log(p))


def typical(candidates: Candidates, p: float) -> Candidates:
    """The fewest whose surprise is nearest to the mean one, that have more than p together.

    Source: Meister et al., Locally Typical Sampling, 2022.
    """
    return candidates.reaching(
        p, -np.abs(candidates.surprises() - candidates.entropy()), above=True
    )


def top_n_sigma(candidates: Candidates, n: float) -> Candidates:
    """Those whose score is at most n standard deviations below the largest.

    Source: Tang et al., Top-nσ: Not All Logits Are You Need, 2024.
    """
    scores = candidates.scores
    aside = scores - scores.mean(dtype=np.float64)
    scale = float(np.abs(aside).max()) or 1.0  # squares of what is this large could overflow
    aside /= scale
    sigma = scale * math.sqrt(float(np.square(aside).mean()))
    least = np.float64(scores.max()) - n * sigma  # which may be less than float32 has
    return candidates.kept(scores >= least)


def xtc(
    candidates: Candidates, probability: float, threshold: float, random: np.random.Generator
) -> Candidates:
    """With a probability, all but those likelier than one that is likely enough itself.

    Source: the sampler "exclude top choices" of text-generation-webui.
    """
    if len(candidates) < 2 or random.random() > probability:
        return candidates
    likely = np.flatnonzero(candidates.shares() >= threshold)
    if len(likely) < 2:
        return candidates
    falling = likely[np.lexsort((likely, -candidates.scores[likely]))]
    stays = np.ones(len(candidates), np.bool_)
    stays[falling[:-1]] = False
    return candidates.kept(stays)
