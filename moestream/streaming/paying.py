"""Whether it pays to ask gates ahead: what that takes, beside the waits that it hides.

Owns the sums. Neither is tried out by doing without: a few tokens tell too little of what a disk
would have done, and each trial costs what guesses would have saved.
"""

from moestream.streaming.residency import Residency

_WINDOW = 8
"""Tokens after which it is decided anew."""
_REST = 120
"""Tokens for which gates are not asked where they did not pay."""
_HIDDEN_LATE = 0.5
"""Of a read that was still under way when its layer asked: what of it had been hidden."""
_LEAST_GAIN = 1.5
"""Times what asking takes that it must save: reads take processor time, too."""


class Paying:
    """Adds up, and decides; ``spent_s`` is told by whoever asks."""

    def __init__(self, residency: Residency) -> None:
        self.pays = True
        self.spent_s = 0.0
        """Time that asking took in this window."""
        self._residency = residency
        self._tokens = 0
        self._useful = 0.0

    def next_token(self) -> None:
        """Note that a pass begins; at the end of a window, decide about the next."""
        self._tokens += 1
        if self._tokens < (_WINDOW if self.pays else _REST):
            return
        useful = self._useful_bytes()
        bandwidth = self._residency.bandwidth()
        saved_s = (useful - self._useful) / bandwidth if bandwidth else 0.0
        self.pays = not self.pays or saved_s > self.spent_s * _LEAST_GAIN
        self._tokens, self.spent_s, self._useful = 0, 0.0, useful

    def _useful_bytes(self) -> float:
        """Read on a guess and then used, as far as it was not waited for."""
        counts = self._residency.counts
        phases = (counts.decode, counts.prefill)
        in_time, late = sum(p.foreseen for p in phases), sum(p.late for p in phases)
        share = (in_time + _HIDDEN_LATE * late) / ((in_time + late) or 1)
        return counts.useful_bytes * share
