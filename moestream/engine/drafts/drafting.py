"""The guesses of one answer: what is guessed, how much of it is tried, and what came of it."""

import time
from collections.abc import Sequence
from typing import Protocol

from moestream.engine.drafts.mtp import Further
from moestream.engine.drafts.ngrams import Ngrams
from moestream.engine.drafts.paying import Option, Paying

MOST = 15
"""Guesses in a pass: more hardly pay, however good they are."""
MOST_FURTHER = 4
"""Guesses of the model's own: each is made from the one before, and less often right."""
_OWN = 0
"""Kind of the model's own guesses; those from the text are by how many tokens are alike."""
_FIRST = 3
"""Of a forced draft, before it is known how good it is."""


class Drafting(Protocol):
    """What a session asks, and tells, while it writes an answer."""

    def guess(self, tokens: Sequence[int], token: int, most: int) -> list[int]:
        """What may come after ``tokens`` and then ``token``: at most so many, or nothing."""

    def passed(self, rows: int, drafted: int, right: int, seconds: float) -> None:
        """A pass of so many tokens took so long, some of them guessed, and so many rightly."""


class NgramDrafting:
    """Guesses from the text, wherever it repeats itself."""

    def __init__(self, expected: Sequence[int] = ()) -> None:
        """``expected`` is what somebody says that the answer will be."""
        self._ngrams, self._expected = Ngrams(), expected
        self._most = _FIRST

    def guess(self, tokens: Sequence[int], token: int, most: int) -> list[int]:
        """See ``Drafting``; longer where those before were right, shorter where they were not."""
        return self._follow(tokens, token).guess(min(self._most, most))

    def passed(self, rows: int, drafted: int, right: int, seconds: float) -> None:
        """See ``Drafting``."""
        if drafted:
            self._most = min(2 * self._most, MOST) if right == drafted else max(right, _FIRST)

    def _follow(self, tokens: Sequence[int], token: int) -> Ngrams:
        ngrams, expected = self._ngrams, self._expected
        if expected and not len(ngrams):
            ngrams.add(expected)
            ngrams.add(tokens)
            ngrams.expect(0)
        ngrams.add(tokens[len(ngrams) - len(expected) :])
        ngrams.add([token])
        return ngrams


class FurtherDrafting:
    """Guesses by the model's layer for further tokens."""

    def __init__(self, further: Further) -> None:
        self._further, self._most = further, 1

    def guess(self, tokens: Sequence[int], token: int, most: int) -> list[int]:
        """See ``Drafting``; one more where all before were right, one less where not."""
        return self._further.guess(tokens, token, min(self._most, most))

    def passed(self, rows: int, drafted: int, right: int, seconds: float) -> None:
        """See ``Drafting``."""
        if drafted:
            more = right == drafted == self._most
            self._most = min(max(self._most + (1 if more else -1), right, 1), MOST_FURTHER)


class PayingDrafting(NgramDrafting):
    """From the text or by the model's own layer, whichever pays more; nothing where none does."""

    def __init__(
        self, paying: Paying, further: Further | None = None, expected: Sequence[int] = ()
    ) -> None:
        super().__init__(expected)
        self._paying, self._further = paying, further
        self._begun = False
        self._kind, self._took_s = _OWN, 0.0

    def guess(self, tokens: Sequence[int], token: int, most: int) -> list[int]:
        """See ``Drafting``."""
        if not self._begun:  # now, and not when it waits for one that is written
            self._begun = True
            self._paying.begin()
        ngrams = self._follow(tokens, token)  # of a long prompt it takes long, whatever is guessed
        started = time.perf_counter()
        found = self._guess(ngrams, tokens, token, most)
        self._took_s = time.perf_counter() - started
        return found

    def passed(self, rows: int, drafted: int, right: int, seconds: float) -> None:
        """See ``Drafting``."""
        self._paying.passed(self._kind, rows, drafted, right, seconds, self._took_s)

    def _guess(self, ngrams: Ngrams, tokens: Sequence[int], token: int, most: int) -> list[int]:
        paying, further = self._paying, self._further
        options = []
        if found := ngrams.guess(min(MOST, most)):
            options.append(Option(ngrams.alike, len(found)))
        if further is not None:
            options.append(Option(_OWN, min(MOST_FURTHER, most), paying.own_s))
        self._kind, count = paying.choose(options)
        if not count or self._kind != _OWN or further is None:
            return found[:count]
        started = time.perf_counter()
        made = further.guess(tokens, token, count)
        paying.made_own(len(made), time.perf_counter() - started)
        return made
