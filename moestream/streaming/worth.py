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
        # Of both phases: any pass of several tokens counts as prefill, and some are guessed for.
        self._counts = residency.counts
        self._wanted = [1.0] * len(layers)
        """Experts of a layer and token that are not in memory without a guess."""
        self._seen = (0, 0, 0.0)
        self._waited_s = self._waited = 0.0
        self._took_s = self._took = 0.0
        self._tokens = 0
        self._counting = False

    def begin_token(self) -> None:
        """A pass begins of which each layer is heeded."""
        self.pause()
        self._waited, self._waited_s = self._waited * _KEPT, self._waited_s * _KEPT
        self._took, self._took_s = self._took * _KEPT, self._took_s * _KEPT
        self._seen = (self._counts.wanted, *self._all_waits())
        self._tokens += 1
        self._counting = True

    def pause(self) -> None:
        """Another pass begins: what it waits for, as a prompt does, is not a token's."""
        if not self._counting:
            return
        self._counting = False
        (unguessed, stall_s), (_, waited, waited_s) = self._all_waits(), self._seen
        self._waited += unguessed - waited
        self._waited_s += stall_s - waited_s

    def _all_waits(self) -> tuple[int, float]:
        """Experts that were waited for and no guess had begun to read, and the seconds."""
        counts = self._counts
        unguessed = sum(each.misses - each.late for each in (counts.decode, counts.prefill))
        return unguessed, counts.stall_s

    def heed(self, place: int) -> None:
        """The layer at a place has asked for its experts."""
        wanted = self._counts.wanted
        before, waited, waited_s = self._seen
        self._wanted[place] += (wanted - before - self._wanted[place]) * _LATEST
        self._seen = (wanted, waited, waited_s)

    def pays(self, place: int) -> bool:
        """Whether a guess for the layer at a place may save more than it takes."""
        # Without guesses for long, one is made: what the last took may have been a busy moment.
        if self._tokens <= _COLD or self._took < 1 or self._waited < 1:
            return True
        saved_s = self._wanted[place] * self._waited_s / self._waited
        return saved_s > self._took_s / self._took

    def took(self, seconds: float) -> None:
        """A guess has been made in so many seconds."""
        self._took += 1
        self._took_s += seconds
