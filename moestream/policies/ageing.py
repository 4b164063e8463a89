"""Scored policies in which uses of long ago count for less: decay, blend, LCP."""

import math
from array import array
from collections import deque
from collections.abc import Sequence

import numpy as np

from moestream.choices import HALF_LIFE
from moestream.policies.base import SEED_TOKENS
from moestream.policies.scored import Scored


class _Ageing(Scored):
    """Scores in a unit that doubles every ``doubling`` tokens, so that old ones need no change."""

    _LIMIT = 512.0  # doublings before all scores are scaled down: far from a double's 1024

    def __init__(self, sizes: Sequence[int], budget_bytes: int, *, doubling: float) -> None:
        super().__init__(sizes, budget_bytes)
        self._doubling = doubling
        self._origin = 0.0

    def _seed_tokens(self) -> float:
        # What the workload would count for if it had gone on for ever: 1 / (1 - 2 ** (-1 / d)).
        return min(SEED_TOKENS, self._doubling / math.log(2) + 0.5)

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
        self._seeded: dict[int, float] = {}  # counts from before token 0, until the window ends
        self._now = (-1, 0.0)  # a token and its unit, which all its layers have

    def _seed_tokens(self) -> float:
        return min(super()._seed_tokens(), self._window or math.inf)

    def _seed_count(self, key: int, count: float) -> None:
        super()._seed_count(key, count)
        if self._window is not None and count:
            self._seeded[key] = count

    def _use(self, keys: Sequence[int], token: int) -> None:
        if token != self._now[0]:
            self._now = token, self._unit(token)
        unit, scores = self._now[1], self._scores
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
                self._take_off(key, unit)
        if self._seeded and token >= window:
            unit = self._unit(0)
            for key in list(self._seeded):
                self._take_off(key, unit * self._seeded.pop(key))

    def _take_off(self, key: int, worth: float) -> None:
        # A sum is not undone exactly by subtraction; nothing is left must mean zero.
        is_left = self._counts[key] or key in self._seeded
        self._scores[key] = self._scores[key] - worth if is_left else 0.0
        if self._resident[key]:
            self._note((key,))


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
                self._note((key,))


class LCP(_Ageing):
    """Drops the lowest ``mu * rho ** (nu / omega)``: mu uses, the last of them nu tokens ago.

    Source: MoEpic, arXiv 2509.08342, with its rho of 0.25 and omega of 128.
    """

    def __init__(
        self, sizes: Sequence[int], budget_bytes: int, *, rho: float = 0.25, omega: float = 128.0
    ) -> None:
        super().__init__(sizes, budget_bytes, doubling=omega / -np.log2(rho))
        self._counts = array("d", bytes(8 * len(sizes)))

    def _seed_tokens(self) -> float:
        return SEED_TOKENS  # its counts do not fade by the token, only with the last use

    def _seed_count(self, key: int, count: float) -> None:
        self._scores[key] = self._counts[key] = count

    def _use(self, keys: Sequence[int], token: int) -> None:
        unit, scores, counts = self._unit(token), self._scores, self._counts
        for key in keys:
            counts[key] += 1
            scores[key] = counts[key] * unit
