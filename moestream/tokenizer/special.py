"""Special tokens in a text: where they are, and how a text is kept from having any.

Owns the search, whose time does not grow with the vocabulary, and the mark that keeps apart what a
template writes and what others say. Knows nothing of ids, nor of how text becomes tokens.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

MARK = "\udfff"
"""Half of a surrogate pair: in text that is well-formed it cannot occur."""


class Finder:
    """Finds some texts in others: the leftmost first, and where several begin the longest."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(filter(None, texts))
        lengths: dict[str, set[int]] = {}
        for text in self._texts:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._start = self._compile()

    def _compile(self) -> re.Pattern[str] | None:
        """What one of the texts may begin with: its first two characters, each of a set."""
        firsts, seconds, alone = (
            "".join(map(re.escape, {text[at] for text in self._texts if fits(len(text))}))
            for at, fits in ((0, (1).__lt__), (1, (1).__lt__), (0, (1).__eq__))
        )
        ways = [f"[{firsts}](?=[{seconds}])"] if firsts else []
        ways += [f"[{alone}]"] if alone else []
        return re.compile("|".join(ways)) if ways else None

    def at(self, text: str, position: int) -> str | None:
        """The longest that is there."""
        for length in self._lengths.get(text[position], ()):
            if (found := text[position : position + length]) in self._texts:
                # One character alone cannot be marked within: the mark is after it.
                return None if length == 1 and text.startswith(MARK, position + 1) else found
        return None

    def starts(self, text: str) -> Iterator[int]:
        """Every place where one begins, also within another."""
        for match in self._start.finditer(text) if self._start else ():
            if self.at(text, match.start()) is not None:
                yield match.start()

    def __call__(self, text: str) -> Iterator[tuple[int, str]]:
        """Places and what is there, none within another."""
        end = 0
        for start in self.starts(text):
            if start >= end and (found := self.at(text, start)) is not None:
                end = start + len(found)
                yield start, found


def mark(text: str, finder: Finder) -> str:
    """Put a mark into whatever ``finder`` would find, after its first character."""
    ends = [0, *(start + 1 for start in finder.starts(text)), len(text)]
    return MARK.join(text[a:b] for a, b in pairwise(ends))


def unmark(text: str) -> str:
    """Take the marks out."""
    return text.replace(MARK, "")
