"""Whether a guess is worth making: the wait that it may save, against what it takes.

Owns the chance that a layer asks for what is not in memory, what such an expert is waited for, and
what a guess takes. All are of what a run has seen lately. What reading beside the arithmetic costs
is not in them: that is found out by ``Trial``.
"""

from collections import deque
from statistics import median

from moestream.streaming.residency import Residency

_LAYER = 1 / 8
"""Weight of a layer among those before it. What is not in memory comes in a row, as a subject of
the text does: this foretells what the next layer misses with a correlation of 0.4 to 0.7, what
that layer itself missed lately with one of 0.1 to 0.3."""
_USUAL = 9
"""Tokens by whose median it is known what one wants; the first ones want far more."""
_KEPT = 1 - 1 / 32
"""Weight of all waits and guesses that were seen before, with each new token."""
_UNKNOWN_S = 1e-3
"""What an expert is waited for, before any was."""


class Worth:
    """Of guesses in a run of so many ``layers``."""

    def __init__(self, residency: Residency, layers: int) -> None:
        self._residency = residency
        self._layers = layers
        self._wanted = 1.0
        """Experts that are not in memory without a guess: of a layer, the latest ones'."""
        self._usual: deque[float] = deque(maxlen=_USUAL)
        """Of a layer, the means of the latest tokens."""
        self._before = 0
        """Wanted in all, up to the latest layer."""
        self._begun = (0, 0, 0.0)
        self._least = -1.0
        """What a layer must want, for a guess to be worth making."""
        self._waited, self._waited_s = 1.0, _UNKNOWN_S
        self._took_s = self._took = 0.0
        self._counting = False

    def begin_token(self) -> None:
        """A pass begins for which guesses may be made."""
        self.pause()
        self._waited, self._waited_s = self._waited * _KEPT, self._waited_s * _KEPT
        self._took, self._took_s = self._took * _KEPT, self._took_s * _KEPT
        if self._usual:  # a token begins as they usually are, half forgetting what the last was
            self._wanted = (self._wanted + median(self._usual)) / 2
        self._begun = self._sums()
        self._before = self._begun[0]
        self._counting = True
        # Without guesses for long, one is made: what the last took may have been a busy moment.
        known = self._took >= 1 and self._waited_s > 0
        self._least = self._took_s / self._took * self._waited / self._waited_s if known else -1.0

    def pause(self) -> None:
        """Another pass begins: what it waits for, as a prompt does, is not a token's."""
        if not self._counting:
            return
        self._counting = False
        wanted, waited, waited_s = (a - b for a, b in zip(self._sums(), self._begun, strict=True))
        self._usual.append(wanted / self._layers)
        self._waited += waited
        self._waited_s += waited_s

    def _sums(self) -> tuple[int, int, float]:
        residency = self._residency
        return residency.wanted, residency.waited, residency.waited_s

    def heed(self) -> None:
        """A layer has asked for its experts."""
        wanted = self._residency.wanted
        self._wanted += (wanted - self._before - self._wanted) * _LAYER
        self._before = wanted

    @property
    def pays(self) -> bool:
        """Whether a guess for the next layer may save more than it takes."""
        return self._wanted > self._least

    @property
    def usually_pays(self) -> bool:
        """Whether guesses of a usual token may."""
        return len(self._usual) < _USUAL or median(self._usual) > self._least

    def took(self, seconds: float) -> None:
        """A guess has been made in so many seconds."""
        self._took += 1
        self._took_s += seconds
