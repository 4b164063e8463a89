"""Mirostat: draws so that tokens are as surprising on average as was asked for.

Source: Basu et al., Mirostat, 2021; both ways as in llama.cpp.
"""

import math

import numpy as np

from moestream.engine.options import SamplingParams
from moestream.engine.sampling.candidates import MOST, Candidates
from moestream.engine.sampling.cuts import top_k
from moestream.engine.sampling.largest import largest
from moestream.engine.sampling.plain import drawn

_LOOKED_AT = 100
"""Tokens by which the first way tells how quickly chances fall."""
_LARGEST_POWER = 40.0
"""Of a count: far more than there are tokens, and far less than overflows."""


class Mirostat:
    """What follows from token to token: how surprising the next one may be, in bits."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self.most = 2 * params.mirostat_tau

    def draw(self, candidates: Candidates, random: np.random.Generator) -> int:
        """The id of the next token."""
        kept = self.kept(candidates)
        weights = np.cumsum(kept.shares(), dtype=np.float64)
        token = drawn(kept.ids, weights, random.random() * weights[-1])
        self.learn(kept, token)
        return token

    def kept(self, candidates: Candidates) -> Candidates:
        """What it draws from."""
        if self._params.mirostat == 1:
            return top_k(candidates, self._count(candidates))
        near = candidates.surprises() <= self.most * math.log(2)
        return candidates.kept(near) if near.any() else top_k(candidates, 1)

    def learn(self, kept: Candidates, token: int) -> None:
        """Allow more surprise where there was too little, and less where there was too much."""
        surprise = float(kept.surprises()[np.searchsorted(kept.ids, token)]) / math.log(2)
        off = self._params.mirostat_eta * (surprise - self._params.mirostat_tau)
        self.most = min(max(self.most - off, -MOST), MOST)

    def _count(self, candidates: Candidates) -> int:
        """How many of the likeliest, as chances fall by Zipf's law; the first way."""
        scores = candidates.scores[largest(candidates.scores, _LOOKED_AT)]
        if len(scores) < 2:
            return 1
        rank = np.arange(1, len(scores))
        steps = np.log((rank + 1) / rank)
        slope = float(steps @ -np.diff(scores)) / float(steps @ steps)
        aside = slope - 1
        if slope <= 0 or aside == 0:
            return len(candidates)
        tail = -math.expm1(-aside * math.log(len(candidates)))
        power = (math.log(aside / tail) + self.most * math.log(2)) / slope
        return max(int(math.exp(min(power, _LARGEST_POWER))), 1)
