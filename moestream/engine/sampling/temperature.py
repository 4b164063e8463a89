"""Temperature: how much a difference of scores counts, fixed or by how sure the model is."""

import math

import numpy as np

from moestream.engine.sampling.candidates import MOST, Candidates
from moestream.engine.sampling.plain import COLDEST


def temperature(candidates: Candidates, value: float) -> Candidates:
    """Scores divided by it; of 0, the likeliest alone."""
    if value < COLDEST:
        return candidates.kept(np.array([np.argmax(candidates.scores)]))
    divided = np.divide(candidates.scores, min(value, MOST), dtype=np.float64)
    return candidates.rescored(divided)


def dynamic_temperature(
    candidates: Candidates, middle: float, reach: float, exponent: float
) -> Candidates:
    """A temperature ``reach`` below the middle where one token is certain, above where none is.

    Source: the sampler "dynatemp" of KoboldCpp.
    """
    if len(candidates) < 2:
        return candidates
    entropy = candidates.entropy() / math.log(len(candidates))
    coldest, hottest = max(0.0, middle - reach), min(middle + reach, MOST)
    unsure = min(max(entropy, 0.0), 1.0) ** exponent
    return temperature(candidates, coldest + (hottest - coldest) * unsure)
