"""Guesses by the model's own layer for further tokens, which follows the tokens of a session.

Owns what it has seen of them: a pair of what the model came to at a token and the token after it,
for each. Its guesses may be wrong in any way, as when it has not seen all; no token hangs on them.
"""

from collections.abc import Sequence

import numpy as np

from moestream.backends import Array
from moestream.layers.batch import CHUNK_TOKENS, Batch
from moestream.layers.cache import Caches
from moestream.models.next_token import NextToken

_WAITING = 32
"""Rows that wait for a guess, which feeds them all at once; of a prompt there are more."""


class Further:
    """One session's keys and values of that layer, and the rows that it was not fed yet."""

    def __init__(self, layer: NextToken, caches: Caches, *, eager: bool = True) -> None:
        """``eager`` has the layer fed all there is; else only what waits when a guess is wanted."""
        self._layer, self._cache, self._eager = layer, caches.new(), eager
        self._missed = 0
        """Positions that it has not seen, or has no row of any more."""
        self._rows: Array | None = None
        """What the model came to at positions from ``_seen`` on: (T, E)."""

    def saw(self, tokens: Sequence[int], start: int, hidden: Sequence[Array]) -> None:
        """Positions of ``tokens`` from ``start`` on were run, to these states of the last layer."""
        for rows in hidden:
            new = self._layer.begin(rows)[max(self._seen - start, 0) :]
            stop = start + len(rows)
            self._append(new, max(start, self._seen))
            if self._waiting > _WAITING and self._eager:
                self._feed(tokens[self._seen + 1 : stop])
            elif self._waiting > _WAITING:
                self._miss(self._waiting - _WAITING)
            start = stop

    def truncate(self, length: int) -> None:
        """The session has forgotten all from position ``length`` on."""
        if self._rows is not None and length > self._seen:
            self._rows = self._rows[: length - self._seen]
            return
        self._rows, self._missed = None, min(self._missed, length)
        pairs = max(length - 1 - self._missed, 0)
        if pairs < self._cache.length:
            self._cache.truncate(pairs)

    def guess(self, tokens: Sequence[int], token: int, most: int) -> list[int]:
        """What may come after ``tokens``, all of which were seen, and then ``token``."""
        nexts = [*tokens[self._seen + 1 :], token]
        most = min(most, self._cache.capacity - self._cache.length - len(nexts) + 1)
        if most < 1 or len(nexts) != self._waiting:
            return []
        row, length = self._feed(nexts), self._cache.length
        found = [self._likeliest(row)]
        while len(found) < most:
            row = self._run(row, found[-1:])
            found.append(self._likeliest(row))
        self._cache.truncate(length)
        return found

    @property
    def _seen(self) -> int:
        """Position of the first token that it was not fed."""
        return self._missed + self._cache.length

    @property
    def _waiting(self) -> int:
        return 0 if self._rows is None else len(self._rows)

    def _miss(self, count: int) -> None:
        """Leave out the first rows that wait."""
        assert self._rows is not None
        self._rows, self._missed = self._rows[count:], self._missed + count

    def _append(self, rows: Array, start: int) -> None:
        """Have rows wait, in the place of those that were there before."""
        before = start - self._seen
        if before > self._waiting:
            self._rows, self._missed = None, start - self._cache.length
        elif self._rows is not None and before:
            rows = self._layer.backend.stack_rows([self._rows[:before], rows])
        self._rows = rows

    def _feed(self, nexts: Sequence[int]) -> Array:
        """Feed the first rows that wait with the tokens after them; return what the last gave."""
        assert self._rows is not None
        rows, self._rows = self._rows[: len(nexts)], self._rows[len(nexts) :]
        for start in range(0, len(nexts), CHUNK_TOKENS):
            some = slice(start, start + CHUNK_TOKENS)
            out = self._run(rows[some], nexts[some])
        return out

    def _run(self, rows: Array, nexts: Sequence[int]) -> Array:
        """Run rows through the layer; return the last: (1, E)."""
        batch = Batch(self._layer.backend, [(self._cache, len(nexts))])
        out = self._layer(rows, np.asarray(nexts, np.int32), batch)
        batch.commit()
        return out[-1:]

    def _likeliest(self, row: Array) -> int:
        return int(self._layer.logits(row)[0].argmax())
