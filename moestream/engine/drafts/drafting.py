"""The guesses of one answer: what is guessed, how much of it is tried, and what came of it."""

from collections.abc import Sequence
from typing import Protocol

from moestream.engine.drafts.mtp import Further
from moestream.engine.drafts.ngrams import Ngrams
from moestream.engine.drafts.paying import Paying

MOST = 15
"""Guesses in a pass: more hardly pay, however good they are."""
MOST_FURTHER = 4
"""Guesses of the model's own: each is made from the one before, and less often right."""
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

    def __init__(self) -> None:
        self._ngrams = Ngrams()
        self._most = _FIRST

    def guess(self, tokens: Sequence[int], token: int, most: int) -> list[int]:
        """See ``Drafting``; longer where those before were right, shorter where they were not."""
        return self._follow(tokens, token).guess(min(self._most, most))

    def passed(self, rows: int, drafted: int, right: int, seconds: float) -> None:
        """See ``Drafting``."""
        if drafted:
            self._most = min(2 * self._most, MOST) if right == drafted else max(right, _FIRST)

    def _follow(self, tokens: Sequence[int], token: int) -> Ngrams:
        ngrams = self._ngrams
        ngrams.add(tokens[len(ngrams) :])
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

    def passed(self, rows: int, drafted: int, right: int, seconds: float) -> None:
        """See ``Drafting``."""
        self._paying.passed(self._kind, rows, drafted, right, seconds)
