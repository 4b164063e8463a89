"""The guesses of one answer: what is guessed, how much of it is tried, and what came of it."""

from collections.abc import Sequence
from typing import Protocol

from moestream.engine.drafts.ngrams import Ngrams
from moestream.engine.drafts.paying import Paying

MOST = 15
"""Guesses in a pass: more hardly pay, however good they are."""
_FIRST = 3
"""Of a forced draft, before it is known how good it is."""


class Drafting(Protocol):
    """What a session asks, and tells, while it writes an answer."""

    def guess(self, tokens: Sequence[int], token: int, most: int) -> list[int]:
        """What may come after ``tokens`` and then ``token``: at most so many, or nothing."""

    def passed(self, drafted: int, right: int, seconds: float) -> None:
        """A pass took so long, in which so many of those that were guessed were right."""


class NgramDrafting:
    """Guesses from the text, wherever it repeats itself."""

    def __init__(self) -> None:
        self._ngrams = Ngrams()
        self._most = _FIRST

    def guess(self, tokens: Sequence[int], token: int, most: int) -> list[int]:
        """See ``Drafting``; longer where those before were right, shorter where they were not."""
        return self._follow(tokens, token).guess(min(self._most, most))

    def passed(self, drafted: int, right: int, seconds: float) -> None:
        """See ``Drafting``."""
        if drafted:
            self._most = min(2 * self._most, MOST) if right == drafted else max(right, _FIRST)

    def _follow(self, tokens: Sequence[int], token: int) -> Ngrams:
        ngrams = self._ngrams
        ngrams.add(tokens[len(ngrams) :])
        ngrams.add([token])
        return ngrams


class PayingDrafting(NgramDrafting):
    """The same where it pays."""

    def __init__(self, paying: Paying) -> None:
        super().__init__()
        self._paying = paying
        self._kind = 0

    def guess(self, tokens: Sequence[int], token: int, most: int) -> list[int]:
        """See ``Drafting``."""
        ngrams = self._follow(tokens, token)
        self._kind = ngrams.alike
        if not (found := ngrams.guess(min(MOST, most))):
            return []
        return found[: self._paying.wanted(self._kind, len(found))]

    def passed(self, drafted: int, right: int, seconds: float) -> None:
        """See ``Drafting``."""
        if drafted:
            self._paying.tried(self._kind, drafted, right, seconds)
        else:
            self._paying.plain(seconds)
