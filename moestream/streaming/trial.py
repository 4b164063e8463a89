"""Whether guesses make a run faster: some tokens are run with them, others without.

Owns the comparison. What guesses save is waited for; what they cost is not only the time to make
them: reads take cores from the arithmetic, and a busy disk makes demand wait. So whole passes are
timed. Waits are compared by what had to be read, which differs from token to token far more than
a wait does, and the rest by medians, which a pause between two requests does not move.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from moestream.streaming.residency import Residency

_WINDOW = 8
"""Tokens that are run one way before the other is tried."""
_WINDOWS = 6
"""Before the first choice, so that each way has three, unless two make it plain."""
_PLAIN = 0.12
"""Part of a token's time that makes it so."""
_KEPT = 120
"""Tokens for which the choice holds, before the other way is tried again."""
_LEAST_GAIN = 0.02
"""Part of a token's time that guesses must save."""
_OLD = 0.7
"""Weight of all that was seen before, in each new window of the same way."""


class _Sums(NamedTuple):
    """Counted up to now: seconds, those of waiting, and experts that no slot held unguessed."""

    now: float
    stalled_s: float
    wanted: int


@dataclass(slots=True)
class _Way:
    """Sums over tokens with guesses, or without; what is older counts for less."""

    tokens: float = 0.0
    busy_s: float = 0.0
    stalled_s: float = 0.0
    wanted: float = 0.0

    def add(self, steps: list[tuple[float, float, int]]) -> None:
        """Tokens' seconds of other than waiting, of waiting, and experts that were not kept."""
        busy_s = median(step[0] for step in steps)
        self.tokens = self.tokens * _OLD + len(steps)
        self.busy_s = self.busy_s * _OLD + busy_s * len(steps)
        self.stalled_s = self.stalled_s * _OLD + sum(step[1] for step in steps)
        self.wanted = self.wanted * _OLD + sum(step[2] for step in steps)

    def token_s(self, wanted: float) -> float:
        """Of a token that wants so many experts that are not kept."""
        per_expert = self.stalled_s / self.wanted if self.wanted else 0.0
        return self.busy_s / self.tokens + per_expert * wanted


class Trial:
    """Says whether to guess; hears of every pass that is short enough for it."""

    def __init__(
        self, residency: Residency, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.guessing = True
        self._residency, self._clock = residency, clock
        self._ways = {True: _Way(), False: _Way()}
        self._windows = 0
        self._length = _WINDOW
        self._before: _Sums | None = None
        self._steps: list[tuple[float, float, int]] = []

    def pause(self) -> None:
        """A pass comes between of which nothing is guessed."""
        self._before = None

    def next_token(self) -> None:
        """Note that a pass begins; at the end of a window, decide how the next ones are run."""
        counts = self._residency.counts
        phases = (counts.decode, counts.prefill)
        sums = _Sums(
            self._clock(),
            sum(phase.stall_s for phase in phases),
            sum(phase.misses + phase.foreseen for phase in phases),
        )
        if (before := self._before) is not None:
            seconds, stalled_s, wanted = (a - b for a, b in zip(sums, before, strict=True))
            self._steps.append((seconds - stalled_s, stalled_s, int(wanted)))
        self._before = sums
        if len(self._steps) >= self._length:
            self._decide()

    def _decide(self) -> None:
        self._ways[self.guessing].add(self._steps)
        self._steps = []
        self._windows += 1
        before, gain = self.guessing, self._gain()
        plain = self._windows % 2 == 0 and abs(gain) > _PLAIN
        if self._length == _KEPT or (self._windows < _WINDOWS and not plain):
            self.guessing, self._length = not self.guessing, _WINDOW
        else:
            self._windows = max(self._windows, _WINDOWS)
            self.guessing, self._length = gain > _LEAST_GAIN, _KEPT
        if self.guessing != before:
            self._before = None  # of the token that begins now, some was guessed the other way

    def _gain(self) -> float:
        """What guesses save, as part of a token's time without them; 0 before both were tried."""
        with_them, without = self._ways[True], self._ways[False]
        if not with_them.tokens or not without.tokens:
            return 0.0
        wanted = (with_them.wanted + without.wanted) / (with_them.tokens + without.tokens)
        return 1 - with_them.token_s(wanted) / without.token_s(wanted)
