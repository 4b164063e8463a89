"""Guesses from the text itself: what came next where its last tokens stood before.

Source: prompt lookup decoding (Saxena, 2023), as llama.cpp's ``lookup`` has it. That a copy is
taken up again where it was changed in a few tokens, as by a new name, is ours.
"""

from collections.abc import Sequence

_LEAST = 3
"""Tokens that must be alike: fewer are found everywhere, and mostly go on in another way."""
_LONGEST = 16
"""More say no more of what comes."""
_PLACES = 8
"""Last places of the same tokens that are looked at."""
_SAID = 8
"""What somebody says of the text is as good as so many tokens that are alike."""
_CHANGED = 12
"""Tokens of a copy that may be left out where something else is in their place."""


class Ngrams:
    """A text that grows, and where in it its end was seen before."""

    def __init__(self) -> None:
        self._text: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}
        """Where the text went on after so many tokens, the newest last."""
        self._next: int | None = None
        """Where in the text the token stands that may come next."""
        self.alike = 0
        """How many tokens before that are those at the end."""
        self._left: tuple[int, int] | None = None
        """Where a copy was left for something else, and how long the text was then."""

    def __len__(self) -> int:
        return len(self._text)

    def add(self, tokens: Sequence[int]) -> None:
        """The text goes on with these."""
        for token in tokens:
            self._add(token)

    def expect(self, place: int) -> None:
        """Somebody says that it goes on as it did from there."""
        self._next, self.alike, self._left = place, _SAID, None

    def guess(self, most: int) -> list[int]:
        """What may come next, up to so many tokens; nothing where the end was not seen before."""
        if self._next is None:
            return []
        found = self._text[self._next : self._next + most]
        again = len(found)  # less where the text repeats itself right before its end
        return [found[n % again] for n in range(most)]

    def _add(self, token: int) -> None:
        text = self._text
        if self._next is not None and text[self._next] == token:
            self._next, self.alike = self._next + 1, min(self.alike + 1, _LONGEST)
        else:
            if self._next is not None and self.alike >= _LEAST:
                self._left = self._next, len(text)
            self._next, self.alike = None, 0
        text.append(token)
        last = tuple(text[-_LEAST:])
        places = self._places.setdefault(last, [])
        if self.alike < _LEAST and places:
            self._next, self.alike = self._longest(places)
            self._left = None
        elif self._next is None and self._left is not None:
            self._take_up(token)
        places.append(len(text))
        del places[:-_PLACES]

    def _longest(self, places: Sequence[int]) -> tuple[int, int]:
        """The place whose tokens before it are most like the end, the newest of several."""
        best, most = 0, 0
        for place in reversed(places):
            alike = self._alike(place)
            if alike > most:
                best, most = place, alike
        return best, most

    def _alike(self, place: int) -> int:
        text, count = self._text, _LEAST
        while count < min(_LONGEST, place) and text[place - 1 - count] == text[-1 - count]:
            count += 1
        return count

    def _take_up(self, token: int) -> None:
        """Go on with a copy a little further on, where it has the same token."""
        assert self._left is not None
        place, length = self._left
        if len(self._text) > length + _CHANGED:
            self._left = None
            return
        try:
            found = self._text.index(token, place, min(place + _CHANGED, len(self._text) - 1))
        except ValueError:
            return
        self._next, self.alike = found + 1, 1
