"""Routing that is drawn, not recorded: it finds its experts in memory with a hit rate that is told.

For a model whose routing nobody has recorded. Whatever is kept and dropped, the live policy
decides; what it keeps is then asked for as often as the rate says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.streaming.view import IN_MEMORY, KEPT
from moestream.traces.clock.replay import ClockedResidency, Replay, Setting
from moestream.traces.clock.turns import Pass, Turn


@dataclass(frozen=True, slots=True)
class DrawnRouting:
    """Passes of one token each, the same whenever they are drawn from the same state."""

    setting: Setting
    hit_rate: float
    seed: int = 0

    def passes(self, replay: Replay, tokens: int) -> Iterator[Pass]:
        """Warm the cache, then draw so many tokens, each when it is asked for."""
        residency, chance = replay.residency, np.random.default_rng(self.seed)
        layers, n = sorted(self.setting.expert_bytes), self.setting.num_experts
        rates = np.zeros((layers[-1] + 1, n))
        rates[layers] = 1 + chance.random((len(layers), n))
        residency.warm(rates.ravel().tolist())
        for token in range(tokens):
            marks = residency.marks().reshape(-1, n)
            rate = self._rate(residency)
            yield [
                Turn(layer, self._choose(marks[layer], rate, chance), True, (0, token))
                for layer in layers
            ]

    def _rate(self, residency: ClockedResidency) -> float:
        """With which to draw: what was dropped before its turn came is made up for."""
        counts = residency.counts.decode
        asked = counts.hits + counts.misses
        return self.hit_rate + (self.hit_rate - counts.cached_rate if asked else 0.0)

    def _choose(
        self, marks: NDArray[np.uint8], rate: float, chance: np.random.Generator
    ) -> NDArray[np.int32]:
        """Experts (1, k) of one layer, of which a part is in memory."""
        kept = np.flatnonzero((marks & KEPT != 0) & (marks & IN_MEMORY != 0))
        others = np.setdiff1d(np.arange(len(marks)), kept)
        k = self.setting.num_experts_per_tok
        hits = int(chance.binomial(k, min(max(rate, 0.0), 1.0)))
        hits = min(max(hits, k - len(others)), len(kept))
        chosen = [*chance.choice(kept, hits, False), *chance.choice(others, k - hits, False)]
        return chance.permutation(np.array(chosen, np.int32))[None]
