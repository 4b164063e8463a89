"""Policies that give every expert a score and drop the lowest; here LFU, in ``ageing`` the others.

Owns the search for the lowest score. It is lazy: scores that fall with time for all experts alike
are instead made to *grow* with each use, so that a score changes only when its expert is used, and
the few lowest ones found by one look at all experts serve many evictions.
"""

from abc import abstractmethod
from array import array
from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np

from moestream.policies.base import SEED_TOKENS, Decision, Policy, hottest

_NOTHING: list[int] = []
_LOOK = 256
"""The most lowest scores that one look finds: about what a look costs in evictions."""
_FEW = 8
"""And the fewest: a layer's own cache is so small that an eighth of it would not pay the look."""


class Scored(Policy):
    """Drops the lowest score, and of equal ones the lowest key. Scores outlive eviction.

    Every resident whose score is at most ``_reach`` is in the heap ``_coldest``, under its score or
    one that it has outgrown.
    """

    def __init__(self, sizes: Sequence[int], budget_bytes: int) -> None:
        super().__init__(sizes, budget_bytes)
        self._scores = array("d", bytes(8 * len(sizes)))
        self._resident = bytearray(len(sizes))
        self._coldest: list[tuple[float, int]] = []
        self._reach = -np.inf

    @abstractmethod
    def _use(self, keys: Sequence[int], token: int) -> None:
        """Raise the scores of a routed set."""

    def seed(self, rates: Sequence[float]) -> list[int]:
        """See ``Policy.seed``: here the rates become counts, of uses made before the first token.

        They fade as all counts do, and are forgotten where the session goes another way.
        """
        tokens = self._seed_tokens()
        for key, rate in enumerate(rates):
            self._seed_count(key, rate * tokens)
        resident = hottest(rates, self.sizes, self.budget_bytes)
        for key in resident:
            self._resident[key] = 1
            self.used_bytes += self.sizes[key]
        return resident

    def _seed_tokens(self) -> float:
        """For how many tokens' uses a seed counts, just before the first."""
        return SEED_TOKENS

    def _seed_count(self, key: int, count: float) -> None:
        self._scores[key] = count

    def access(self, keys: Sequence[int], token: int) -> Decision:
        """See ``Policy.access``."""
        self._use(keys, token)
        resident, sizes, used_bytes = self._resident, self.sizes, self.used_bytes
        missing = [key for key in keys if not resident[key]]
        for key in missing:
            resident[key] = 1
            used_bytes += sizes[key]
        self.used_bytes = used_bytes
        if used_bytes > self.budget_bytes:
            return missing, self._evict(keys, missing)
        self._note(missing)
        return missing, _NOTHING

    def _note(self, keys: Sequence[int]) -> None:
        """Restore what is said of ``_coldest`` after ``keys`` came in or their scores fell."""
        scores, reach, coldest = self._scores, self._reach, self._coldest
        for key in keys:
            if scores[key] <= reach:
                heappush(coldest, (scores[key], key))

    def _evict(self, in_use: Sequence[int], new: Sequence[int]) -> list[int]:
        """Drop the lowest; ``new`` of those in use have come in now, and are not in the heap."""
        coldest, scores, resident, sizes = self._coldest, self._scores, self._resident, self.sizes
        excess, reach = self.used_bytes - self.budget_bytes, self._reach
        evicted: list[int] = []
        stepped_over: list[tuple[float, int]] = []
        while excess > 0:
            if not coldest:
                stepped_over, new = [], in_use  # which a look leaves out
                if not self._look(in_use):
                    break
                reach = self._reach
            noted, key = coldest[0]
            score = scores[key]
            if score != noted and score <= reach and resident[key]:
                heapreplace(coldest, (score, key))
                continue
            heappop(coldest)
            if score != noted or not resident[key]:
                continue
            if key in in_use:
                stepped_over.append((score, key))
                continue
            resident[key] = 0
            excess -= sizes[key]
            evicted.append(key)
        self.used_bytes = self.budget_bytes + excess
        for entry in stepped_over:
            heappush(coldest, entry)
        self._note(new)
        return evicted

    def _look(self, in_use: Sequence[int]) -> bool:
        """Find the lowest scores of what may be dropped; say whether there is any."""
        mask = np.frombuffer(self._resident, np.bool_).copy()
        mask[list(in_use)] = False
        keys = np.flatnonzero(mask)
        if not len(keys):
            return False
        scores = np.frombuffer(self._scores)[keys]
        last = min(_LOOK, max(len(keys) // 8, _FEW), len(keys) - 1)
        self._reach = float(np.partition(scores, last)[last])
        low = scores <= self._reach
        self._coldest.extend(zip(scores[low].tolist(), keys[low].tolist(), strict=True))
        heapify(self._coldest)
        return True


class LFU(Scored):
    """Drops what was used least often since the start, and of those what was used longest ago."""

    _TICK = 2.0**-34  # recency is the fraction of a score: exact for 1.7e10 uses, 5e5 of a key

    def __init__(self, sizes: Sequence[int], budget_bytes: int) -> None:
        super().__init__(sizes, budget_bytes)
        self._clock = 0.0

    def _seed_count(self, key: int, count: float) -> None:
        # The fraction is for recency: less than one tick, so that any use comes after all seeds.
        self._scores[key] = count // 1 + count % 1 * self._TICK

    def _use(self, keys: Sequence[int], token: int) -> None:
        scores, clock = self._scores, self._clock
        for key in keys:
            clock += self._TICK
            scores[key] = scores[key] // 1 + 1 + clock
        self._clock = clock
