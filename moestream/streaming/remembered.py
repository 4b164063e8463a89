"""What each token was routed to when it last came: known before a pass has computed anything.

Owns which tokens are remembered and for how long. Shallow layers route by the token alone, nearly;
deeper ones still do so more often than not. Knows nothing of what is read for it.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_MOST_TOKENS = 4096
"""Of a vocabulary; who was met longest ago is forgotten first. A few MiB for a large model."""


class RememberedRouting:
    """The experts of the tokens of a session, by layer, as they were chosen the last time."""

    def __init__(self, layers: Sequence[int], most: int = _MOST_TOKENS) -> None:
        self._places = {layer: place for place, layer in enumerate(layers)}
        self._most = most
        self._table: NDArray[np.int16] = np.empty((0, 0, 0), np.int16)
        self._row_of: dict[int, int] = {}
        """By token, the one that was begun longest ago first."""
        self._rows: NDArray[np.intp] = np.empty(0, np.intp)
        """Of the pass under way, one a token; the last ones of it, if there are too many."""
        self._seen = [0] * len(layers)
        """Tokens of the pass that have gone through each layer."""
        self._tokens = 0
        self._steps: list[tuple[int, NDArray[np.int32]]] = []

    @classmethod
    def n_bytes(cls, experts: Iterable[int]) -> int:
        """What all tokens take that are remembered, from how many ``experts`` layers choose."""
        return 2 * _MOST_TOKENS * sum(experts)

    def begin(self, tokens: NDArray[np.int32]) -> None:
        """A pass of these tokens begins; what the last one was routed to is remembered now."""
        self._settle()
        self._tokens = len(tokens)
        self._seen = [0] * len(self._places)
        rows = [self._row(token) for token in tokens[-self._most :].tolist()]
        self._rows = np.array(rows, np.intp)

    def of_pass(self) -> NDArray[np.int16] | None:
        """Experts (T, layers, k) of its tokens that are known, -1 where a layer's are not."""
        if not self._table.size:
            return None
        return self._table[self._rows]

    def learn(self, layer: int, expert_ids: NDArray[np.int32]) -> None:
        """``expert_ids`` (T, k) of the pass's next tokens at ``layer``."""
        place = self._places[layer]
        before = self._seen[place]
        self._seen[place] = before + len(expert_ids)
        if self._seen[place] > self._tokens:
            return  # of another pass, which ran between two parts of this
        if self._tokens == 1:
            self._steps.append((place, expert_ids))
            return
        self._keep(place, before, expert_ids)

    def _settle(self) -> None:
        """Keep what one token was routed to, in one go."""
        steps, self._steps = self._steps, []
        if not steps:
            return
        self._make_table(steps[0][1].shape[1])
        alike = [step for step in steps if step[1].shape[1] == self._table.shape[2]]
        if alike:
            places, found = zip(*alike, strict=True)
            self._table[self._rows[0], list(places)] = np.concatenate(found)

    def _keep(self, place: int, before: int, expert_ids: NDArray[np.int32]) -> None:
        self._make_table(expert_ids.shape[1])
        first = before - (self._tokens - len(self._rows))
        skipped = max(-first, 0)
        kept = expert_ids[skipped:]
        if len(kept) and kept.shape[1] == self._table.shape[2]:
            start = first + skipped
            self._table[self._rows[start : start + len(kept)], place] = kept

    def _make_table(self, k: int) -> None:
        if not self._table.size:
            self._table = np.full((self._most, len(self._places), k), -1, np.int16)

    def _row(self, token: int) -> int:
        row = self._row_of.pop(token, None)
        if row is None:
            row = len(self._row_of)
            if row >= self._most:
                row = self._row_of.pop(next(iter(self._row_of)))
            if self._table.size:
                self._table[row] = -1
        self._row_of[token] = row
        return row
