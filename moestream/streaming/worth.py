"""Whether a layer's guess is worth making: the wait that it may save, against what it takes.

Owns the chance that a layer asks for what is not in memory, what such an expert is waited for, and
what a guess takes. All are means of what a run has seen, the latest first. What reading beside the
arithmetic costs is not in them: that is found out by ``Trial``.
"""

from collections.abc import Sequence

from moestream.streaming.residency import Residency

_LATEST = 1 / 8
"""Weight of a token in the means of a layer."""
_KEPT = 1 - 1 / 32
"""Weight of all that was seen before, in sums over layers, with each new token."""
_COLD = 16
"""Tokens for which all guesses are made: they miss more than those that come."""


class Worth:
    """Of the layers with experts, by their place in the model's order."""

    def __init__(self, residency: Residency, layers: Sequence[int]) -> None:
        self._counts = residency.counts.decode
        self._wanted = [1.0] * len(layers)
        """Experts of a layer and token that are not in memory without a guess."""
        self._seen = (0, 0, 0.0)
        self._waited_s = self._waited = 0.0
        self._took_s = self._took = 0.0
        self._tokens = 0

    def begin_token(self) -> None:
        """A pass of one token begins."""
        counts = self._counts
        unguessed = counts.misses - counts.late
        _, waited, waited_s = self._seen
        self._waited = self._waited * _KEPT + unguessed - waited
        self._waited_s = self._waited_s * _KEPT + counts.stall_s - waited_s
        self._took, self._took_s = self._took * _KEPT, self._took_s * _KEPT
        self._seen = (counts.misses + counts.foreseen, unguessed, counts.stall_s)
        self._tokens += 1

    def heed(self, place: int) -> None:
        """The layer at a place has asked for its experts."""
        counts = self._counts
        wanted = counts.misses + counts.foreseen
        before, waited, waited_s = self._seen
        self._wanted[place] += (wanted - before - self._wanted[place]) * _LATEST
        self._seen = (wanted, waited, waited_s)

    def pays(self, place: int) -> bool:
        """Whether a guess for the layer at a place may save more than it takes."""
        if self._tokens <= _COLD or not self._took or self._waited < 1:
            return True
        saved_s = self._wanted[place] * self._waited_s / self._waited
        return saved_s > self._took_s / self._took

    def took(self, seconds: float, guesses: int) -> None:
        """So many guesses have been made in so many seconds."""
        self._took += guesses
        self._took_s += seconds
