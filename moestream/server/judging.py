"""Which guesses were right: told by what a guess's layer routes to next. Knows no engine."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
"""Experts, each its layer's row times experts a layer and its number there; -1 is none."""

_NONE = np.zeros(0, np.int64)


class GuessJudge:
    """Keeps guesses until their layers have been asked."""

    def __init__(self, num_experts: int) -> None:
        self._num_experts = num_experts
        self._places, self._made = _NONE, _NONE

    def add(self, places: Sequence[int], made: Sequence[int]) -> None:
        """Take guesses in the order in which they were made.

        ``made`` tells of each routing that is judged next how many had been made until then.
        """
        found = np.array(places, np.int64)
        at = np.searchsorted(np.array(made), np.arange(len(found)), side="right")
        self._places = np.concatenate((self._places, found[found >= 0]))
        self._made = np.concatenate((self._made, at[found >= 0]))

    def judge(self, rows: Places, lengths: Places, places: Places) -> tuple[Places, Places]:
        """Which guesses were used, and which were not, by routings in their order.

        A routing is of the layer in ``rows``, and of ``lengths`` of the ``places`` (T, k). Guesses
        of layers that were not asked since wait for more.
        """
        if not len(self._places):
            return _NONE, _NONE
        count, row = len(rows), self._places // self._num_experts
        turns = np.sort(rows * count + np.arange(count))  # by layer, then in their order
        next_turn = np.searchsorted(turns, row * count + self._made)
        asked = np.append(turns, -1)[next_turn]
        due = asked // count == row
        guesses, self._places = self._places[due], self._places[~due]
        self._made = np.zeros_like(self._places)  # before all that is judged next
        turn = np.repeat(np.arange(count), lengths)[:, None]
        used = np.isin(asked[due] % count << 32 | guesses, turn << 32 | places)
        return guesses[used], guesses[~used]
