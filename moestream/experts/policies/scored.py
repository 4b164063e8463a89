"""Policies that give every expert a score and drop the lowest: LFU, decay, LCP.

Owns the search for the lowest score. It is lazy: scores that fall with time for all experts alike
are instead made to *grow* with each use, so that a score changes only when its expert is used, and
the few lowest ones found by one look at all experts serve many evictions.
"""

from abc import abstractmethod
from array import array
from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np

from moestream.experts.policies.base import Decision, Policy

HALF_LIFE = 32.0
"""Tokens in which a use fades by half: near the best on all traces, which differ little."""

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

    def access(self, keys: Sequence[int], token: int) -> Decision:
        """See ``Policy.access``."""
        self._use(keys, token)
        resident, sizes, scores, reach = self._resident, self.sizes, self._scores, self._reach
        missing = [key for key in keys if not resident[key]]
        for key in missing:
            resident[key] = 1
            self.used_bytes += sizes[key]
            if scores[key] <= reach:
                heappush(self._coldest, (scores[key], key))
        if self.used_bytes <= self.budget_bytes:
            return missing, _NOTHING
        return missing, self._evict(keys)

    def _note(self, key: int) -> None:
        """Restore what is said of ``_coldest`` after ``key`` came in or its score fell."""
        score = self._scores[key]
        if score <= self._reach:
            heappush(self._coldest, (score, key))

    def _evict(self, in_use: Sequence[int]) -> list[int]:
        coldest, scores, resident, sizes = self._coldest, self._scores, self._resident, self.sizes
        excess, reach = self.used_bytes - self.budget_bytes, self._reach
        evicted, stepped_over = [], False
        while excess > 0:
            if not coldest:
                stepped_over = True
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
                stepped_over = True
                continue
            resident[key] = 0
            excess -= sizes[key]
            evicted.append(key)
        self.used_bytes = self.budget_bytes + excess
        if stepped_over:
            for key in in_use:
                self._note(key)
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

    def _use(self, keys: Sequence[int], token: int) -> None:
        scores, clock = self._scores, self._clock
        for key in keys:
            clock += self._TICK
            scores[key] = scores[key] // 1 + 1 + clock
        self._clock = clock


class _Ageing(Scored):
    """Scores in a unit that doubles every ``doubling`` tokens, so that old ones need no change."""

    _LIMIT = 512.0  # doublings before all scores are scaled down: far from a double's 1024

    def __init__(self, sizes: Sequence[int], budget_bytes: int, *, doubling: float) -> None:
        super().__init__(sizes, budget_bytes)
        self._doubling = doubling
        self._origin = 0.0

    def _unit(self, token: int) -> float:
        """Worth of one use at ``token``, in the scale of all scores."""
        exponent = token / self._doubling - self._origin
        if exponent > self._LIMIT:
            self._rescale(exponent // 1)
            exponent = token / self._doubling - self._origin
        return float(2.0**exponent)

    def _rescale(self, doublings: float) -> None:
        self._origin += doublings
        scores = np.frombuffer(self._scores)
        np.ldexp(scores, -int(min(doublings, 4096)), out=scores)
        self._coldest.clear()
        self._reach = -np.inf


class Decay(_Ageing):
    """Drops the lowest count of uses, where a use fades by half every ``half_life`` tokens.

    With a ``window``, uses more than that many tokens ago do not count at all. Without fading
    (an infinite half-life) the window alone is left.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        budget_bytes: int,
        *,
        half_life: float = HALF_LIFE,
        window: int | None = None,
    ) -> None:
        super().__init__(sizes, budget_bytes, doubling=half_life)
        self._window = window
        self._recent: deque[tuple[int, Sequence[int]]] = deque()
        self._counts = array("q", bytes(8 * len(sizes)))  # uses in the window

    def _use(self, keys: Sequence[int], token: int) -> None:
        unit, scores = self._unit(token), self._scores
        for key in keys:
            scores[key] += unit
        if self._window is not None:
            self._slide(keys, token, self._window)

    def _slide(self, keys: Sequence[int], token: int, window: int) -> None:
        for key in keys:
            self._counts[key] += 1
        self._recent.append((token, tuple(keys)))
        while self._recent[0][0] <= token - window:
            past, old = self._recent.popleft()
            unit = self._unit(past)
            for key in old:
                self._counts[key] -= 1
                # A sum is not undone exactly by subtraction; nothing is left must mean zero.
                self._scores[key] = self._scores[key] - unit if self._counts[key] else 0.0
                if self._resident[key]:
                    self._note(key)


class Blend(_Ageing):
    """Decay, and a bonus for what its layer used in its last pass: the likeliest to come again.

    The score estimates the chance of a use in the layer's next pass: the fading count times the
    share of one use in it, plus ``bonus`` while the layer has not run again. So an expert of a
    layer just ahead still has its bonus, and one that its layer has passed over has lost it: what
    makes a plain LRU drop exactly what is needed next works for this policy.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        budget_bytes: int,
        *,
        half_life: float = HALF_LIFE,
        bonus: float = 0.2,
    ) -> None:
        super().__init__(sizes, budget_bytes, doubling=half_life)
        self._bonus = bonus / (1 - 2.0 ** (-1 / half_life))  # in uses
        self._fresh: deque[tuple[int, Sequence[int]]] = deque()

    def _use(self, keys: Sequence[int], token: int) -> None:
        unit, scores, fresh = self._unit(token), self._scores, self._fresh
        for key in keys:
            scores[key] += unit + unit * self._bonus
        fresh.append((token, tuple(keys)))
        # Layers run in the same order in every pass: the oldest set is this layer's, if it is of
        # the pass before.
        while fresh[0][0] < token - 1:
            self._expire(*fresh.popleft())
        if fresh[0][0] < token:
            self._expire(*fresh.popleft())

    def _expire(self, token: int, keys: Sequence[int]) -> None:
        bonus, scores = self._unit(token) * self._bonus, self._scores
        for key in keys:
            scores[key] -= bonus
            if self._resident[key]:
                self._note(key)


class LCP(_Ageing):
    """Drops the lowest ``mu * rho ** (nu / omega)``: mu uses, the last of them nu tokens ago.

    Source: MoEpic, arXiv 2509.08342, with its rho of 0.25 and omega of 128.
    """

    def __init__(
        self, sizes: Sequence[int], budget_bytes: int, *, rho: float = 0.25, omega: float = 128.0
    ) -> None:
        super().__init__(sizes, budget_bytes, doubling=omega / -np.log2(rho))
        self._counts = array("q", bytes(8 * len(sizes)))

    def _use(self, keys: Sequence[int], token: int) -> None:
        unit, scores, counts = self._unit(token), self._scores, self._counts
        for key in keys:
            counts[key] += 1
            scores[key] = counts[key] * unit
