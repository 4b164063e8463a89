"""Whether guesses make a run faster: some tokens are run with them, others without.

Owns the comparison. What guesses save is waited for; what they cost is not only the time to make
them: reads take cores from the arithmetic, and a busy disk makes demand wait. So whole passes are
timed, to their last layer with experts. Waits are compared by what had to be read, which differs
from token to token far more than a wait does, and the rest by medians.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from moestream.streaming.residency import Residency

_COLD = 16
"""Tokens at first that tell nothing: the disk has all to do, whatever is guessed."""
_TRIED = 16
"""Tokens of a trial."""
_WITHOUT = 4
"""Of which one in so many is run without guesses: in between, so both ways meet the same
conditions. As many of each would tell hardly more."""
_TRIALS = 3
"""One after the other before the first choice, unless one makes it plain."""
_PLAIN = 0.04
"""Part of a token's time, saved, that makes it so."""
_PLAIN_LOSS = 0.03
"""Or lost: a run without guesses that would gain by them tries again, one with them loses on."""
_KEPT = 120
"""Tokens for which a choice holds, before the next trial."""
_AWAKE = 16
"""Tokens before a trial in which what guesses go by is heard of again."""
_LEAST_GAIN = 0.01
"""Part of a token's time that guesses must save."""
_OLD = 0.7
"""Weight of all that was seen before, in each new trial."""


class _Sums(NamedTuple):
    """Counted up to now: seconds, those of waiting, and experts that no slot held unguessed."""

    now: float
    stalled_s: float
    wanted: int


class _Step(NamedTuple):
    """A token's seconds of other than waiting, of waiting, and experts that were not kept."""

    busy_s: float
    stalled_s: float
    wanted: int


@dataclass(slots=True)
class _Way:
    """Sums over tokens with guesses, or without; what is older counts for less."""

    tokens: float = 0.0
    busy_s: float = 0.0
    stalled_s: float = 0.0
    wanted: float = 0.0

    def add(self, steps: list[_Step]) -> None:
        """Add what tokens of a trial took."""
        busy_s = median(step.busy_s for step in steps)
        self.tokens = self.tokens * _OLD + len(steps)
        self.busy_s = self.busy_s * _OLD + busy_s * len(steps)
        self.stalled_s = self.stalled_s * _OLD + sum(step.stalled_s for step in steps)
        self.wanted = self.wanted * _OLD + sum(step.wanted for step in steps)

    def token_s(self, wanted: float) -> float:
        """Of a token that wants so many experts that are not kept."""
        per_expert = self.stalled_s / self.wanted if self.wanted else 0.0
        return self.busy_s / self.tokens + per_expert * wanted


class Trial:
    """Says whether to guess; hears of passes that are short enough for it, and tell something.

    Before the first trial it says so if it is ``trusting``. A token that it did not hear the
    beginning of does not count.
    """

    def __init__(
        self,
        residency: Residency,
        clock: Callable[[], float] = time.perf_counter,
        *,
        trusting: bool = True,
    ) -> None:
        self.guessing = trusting
        self._residency, self._clock = residency, clock
        self._ways = {True: _Way(), False: _Way()}
        self._trying, self._trials = False, 0
        self._left = _COLD
        self._before: _Sums | None = None
        self._steps: dict[bool, list[_Step]] = {True: [], False: []}

    @property
    def rests(self) -> bool:
        """Whether no guess is made for so long that nothing need be heard for one."""
        return not self.guessing and not self._trying and self._left > _AWAKE

    def begin_token(self) -> None:
        """A pass begins; what comes between two of them is nobody's time."""
        self._before = self._sums()

    def pause(self) -> None:
        """A pass comes between of which nothing is guessed: that which has begun tells nothing."""
        self._before = None

    def next_token(self) -> None:
        """Note that a pass is about to end, and say how the next is run."""
        before, self._before = self._before, None
        if before is None:
            return
        if self._trying:
            seconds, stalled_s, wanted = (a - b for a, b in zip(self._sums(), before, strict=True))
            self._steps[self.guessing].append(_Step(seconds - stalled_s, stalled_s, int(wanted)))
        self._left -= 1
        if self._left <= 0:
            self._go_on()
        if self._trying:
            self.guessing = self._left % _WITHOUT != 1

    def _sums(self) -> _Sums:
        counts = self._residency.counts
        return _Sums(self._clock(), counts.stall_s, self._residency.wanted)

    def _go_on(self) -> None:
        """From a choice to a trial, from a trial to the next or to a choice."""
        if not self._trying:
            self._trying, self._left = True, _TRIED
            return
        self._trials += 1
        for way, steps in self._steps.items():
            if steps:
                self._ways[way].add(steps)
                steps.clear()
        gain = self._gain()
        self._trying = self._trials < _TRIALS and -_PLAIN_LOSS <= gain <= _PLAIN
        self._left = _TRIED if self._trying else _KEPT
        if not self._trying:
            self.guessing = gain > _LEAST_GAIN

    def _gain(self) -> float:
        """What guesses save, as part of a token's time without them; 0 before both were tried."""
        with_them, without = self._ways[True], self._ways[False]
        if not with_them.tokens or not without.tokens:
            return 0.0
        wanted = (with_them.wanted + without.wanted) / (with_them.tokens + without.tokens)
        return 1 - with_them.token_s(wanted) / without.token_s(wanted)
