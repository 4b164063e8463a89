"""Whether a draft pays, from what was measured: times of passes by their tokens, and right guesses.

Owns the promise of ``auto``: what drafts have cost more than they gave stays a small part of the
time that was spent, whatever the text is. Times hold all that a pass takes, the reading of experts
too, so that a budget which makes further tokens dear is seen in them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

_STAKE = 0.01
"""Share of the time of all passes that drafts may lose."""
_START = 0.5
"""Tokens' time that they may lose at the beginning of an answer, if it was not lost before."""
_CREDIT = 24.0
"""Tokens' time that an answer has gained and may lose again, as drafts become longer."""
_GAIN = 1.06
"""A draft is to be so much faster than no draft, for all that the estimates may be wrong."""
_TRY_EACH = 48
"""Tokens between two drafts that are not thought to pay, as text and machine change."""
_PLAIN_EACH = 24
"""Passes with drafts between two without, so that both are known."""
_RATE = 0.15
"""How quickly estimates of times follow what is measured."""
_OUTLIER = 2.0
"""Time beyond so many times what was expected is another program's."""
_FURTHER = 0.6
"""What a further token takes of a first one's time, as long as nobody knows."""
_OWN_SHARE = 0.3
"""What a guess of the model's own layer takes of a token's time, as long as nobody knows."""
_MEMORY = 24.0
"""Guesses that count, of those that were made alike."""


class Times:
    """Seconds of a pass by its tokens: the first's, and what part of that each further one adds."""

    def __init__(self) -> None:
        self.one_s = 0.0
        """0 is not known yet."""
        self._further = _FURTHER
        self._samples = 0

    def add(self, rows: int, seconds: float) -> None:
        """A pass of so many tokens has taken so long."""
        if not self.one_s:
            self.one_s = seconds if rows == 1 else 0.0
        elif rows == 1:
            self.one_s += _RATE * (self.likely(1, seconds) - self.one_s)
        else:
            self._samples += 1
            rate = max(_RATE, 1 / (self._samples + 1))
            ratio = self.likely(rows, seconds) / self.one_s
            further = max(ratio - 1, 0.0) / (rows - 1)
            self._further += rate * (further - self._further)

    def seconds(self, rows: int) -> float:
        """What a pass of so many tokens takes."""
        return self.one_s * (1 + self._further * (rows - 1))

    def likely(self, rows: int, seconds: float) -> float:
        """What of a pass's time was its own."""
        return min(seconds, _OUTLIER * self.seconds(rows))


class Chances:
    """How often guesses were right, by what there was to say for them."""

    def __init__(self, prior: Callable[[int], float]) -> None:
        """``prior`` is what is thought of a kind of guess before any was seen."""
        self._prior = prior
        self._seen: dict[int, tuple[float, float]] = {}

    def add(self, kind: int, right: int, wrong: int) -> None:
        """So many tokens of a guess were right, and then one was not, or none was."""
        good, bad = self._seen.get(kind, (4 * self._prior(kind), 4 * (1 - self._prior(kind))))
        fade = 1 - (right + wrong) / (_MEMORY + right + wrong)
        self._seen[kind] = good * fade + right, bad * fade + wrong

    def of(self, kind: int) -> float:
        """The chance that a token is guessed rightly where those before it were."""
        good, bad = self._seen.get(kind, (self._prior(kind), 1 - self._prior(kind)))
        return good / (good + bad)


class Option(NamedTuple):
    """What could be tried: a kind of guess, how many tokens of it, what each takes to be made."""

    kind: int
    most: int
    each_s: float = 0.0


class Paying:
    """Decides how many tokens of a guess are tried; one for all answers of an engine."""

    def __init__(self, prior: Callable[[int], float]) -> None:
        self.times = Times()
        self.chances = Chances(prior)
        self._room_s: float | None = None
        """What may be lost from now on; None until the time of a token is known."""
        self._since_try = self._tries = 0
        self._since_plain = 0
        self._own_s: float | None = None

    def begin(self) -> None:
        """An answer begins: what others gained is not to be lost in it."""
        if self._room_s is not None:
            self._room_s = min(self._room_s, _START * self.times.one_s)

    @property
    def own_s(self) -> float:
        """What it takes the model's own layer to guess a token."""
        return _OWN_SHARE * self.times.one_s if self._own_s is None else self._own_s

    def made_own(self, count: int, seconds: float) -> None:
        """That layer has guessed so many tokens in so long."""
        if count:
            each_s = seconds / count
            known = each_s if self._own_s is None else self._own_s
            self._own_s = known + _RATE * (min(each_s, _OUTLIER * known) - known)

    def choose(self, options: Sequence[Option]) -> tuple[int, int]:
        """Which kind of guess to try, and how many tokens of it, 0 for none.

        What pays most: where nothing does, one token now and then, of each in turn.
        """
        room_s = self._room_s
        if room_s is None or self._since_plain >= _PLAIN_EACH or not options:
            return 0, 0
        best, kind, most = _GAIN, 0, 0
        for option in options:
            gain, count = self._best(option, room_s)
            if gain > best:
                best, kind, most = gain, option.kind, count
        if not most and self._since_try >= _TRY_EACH:
            tried = options[self._tries % len(options)]
            if tried.most > 0 and self._costs_s(tried, 1) <= room_s:
                self._since_try, self._tries = 0, self._tries + 1
                return tried.kind, 1
        return kind, most

    def _best(self, option: Option, room_s: float) -> tuple[float, int]:
        """How many times as fast the best number of tokens is, and that number."""
        chance, one_s = self.chances.of(option.kind), self.times.one_s
        gain, best, expected, power = 0.0, 0, 1.0, 1.0
        for count in range(1, option.most + 1):
            power *= chance
            expected += power
            costs_s = self._costs_s(option, count)
            if costs_s > room_s:
                break
            if expected * one_s / (one_s + costs_s) > gain:
                gain, best = expected * one_s / (one_s + costs_s), count
        return gain, best

    def _costs_s(self, option: Option, count: int) -> float:
        """What so many tokens of a guess cost beyond a pass without them."""
        times = self.times
        return times.seconds(1 + count) - times.one_s + count * option.each_s

    def passed(
        self, kind: int, rows: int, drafted: int, right: int, seconds: float, guess_s: float = 0.0
    ) -> None:
        """A pass of ``rows`` tokens took so long; so many were ``drafted``, and were ``right``.

        ``guess_s`` is what guessing took, even if nothing was guessed.
        """
        times = self.times
        times.add(rows, seconds)
        if drafted:
            self.chances.add(kind, right, int(right < drafted))
        if not times.one_s:
            return
        seconds = times.likely(rows, seconds)
        room_s = _START * times.one_s if self._room_s is None else self._room_s
        room_s += _STAKE * seconds - guess_s
        self._since_try += 1 + right
        self._since_plain = self._since_plain + 1 if rows > 1 else 0
        if rows > 1:
            room_s += (1 + right) * times.one_s - seconds
        self._room_s = min(room_s, _CREDIT * times.one_s)
