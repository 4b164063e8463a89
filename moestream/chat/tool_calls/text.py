"""Text that comes in pieces, read by coroutines as if all of it were there.

Owns waiting for what is not there yet, and remembering what was read so that it can be given back.
A reader is a generator: it yields where it must wait, and goes on once there is more.
"""

from collections.abc import Callable, Generator
from typing import TypeVar

_T = TypeVar("_T")
Reading = Generator[None, None, _T]
"""Yields while it waits; returns what it has read."""

SPACE = " \t\r\n"


class Malformed(Exception):  # noqa: N818 - part of the way that text is read, and never told
    """The text is not what the format wants; it goes on as text of the answer."""


class Text:
    """What has come and was not read yet; ``ended`` once no more will come."""

    def __init__(self) -> None:
        self.ended = False
        self._all = ""
        self._at = 0  # read up to here
        self._mark = 0  # may be given back from here

    def add(self, text: str) -> None:
        """Add what has come."""
        self._all = self._all[self._mark :] + text
        self._at, self._mark = self._at - self._mark, 0

    def mark(self) -> None:
        """Forget what was read."""
        self._mark = self._at

    @property
    def read(self) -> str:
        """What was read since the mark."""
        return self._all[self._mark : self._at]

    def back(self, kept: int) -> None:
        """Give back what was read since the mark, but for its first so many characters."""
        self._at = self._mark + kept

    def peek(self, count: int = 1) -> Reading[str]:
        """Return the next characters, fewer at the end only."""
        while len(self._all) - self._at < count and not self.ended:
            yield
        return self._all[self._at : self._at + count]

    def take(self, count: int = 1) -> Reading[str]:
        """Read so many characters, fewer at the end only."""
        text = yield from self.peek(count)
        self._at += len(text)
        return text

    def match(self, *literals: str) -> Reading[str | None]:
        """Read the longest of these that comes next, if any does.

        What begins one at the very end is read too: it was to be that.
        """
        while True:
            rest = self._all[self._at : self._at + max(map(len, literals))]
            found = max((text for text in literals if rest.startswith(text)), key=len, default=None)
            more = (text for text in literals if len(text) > len(rest) and text.startswith(rest))
            if not any(len(text) > len(found or "") for text in more):
                self._at += len(found or "")
                return found
            if self.ended:
                self._at += len(rest)
                return found
            yield

    def expect(self, *literals: str) -> Reading[str]:
        """Read one of these.

        Raises:
            Malformed: none of them comes next.
        """
        found = yield from self.match(*literals)
        if found is None:
            raise Malformed
        return found

    def space(self) -> Reading[str]:
        """Read white space, if there is any."""
        start = self._at
        while True:
            while self._at < len(self._all) and self._all[self._at] in SPACE:
                self._at += 1
            if self._at < len(self._all) or self.ended:
                return self._all[start : self._at]
            start -= self._mark  # what is added may drop what is before the mark
            yield
            start += self._mark

    def items(self, read: Callable[[], Reading[None]]) -> Reading[None]:
        """Read a list's items, and what closes it; it was opened already.

        Raises:
            Malformed: another thing comes after an item.
        """
        end = ","
        while end == ",":
            yield from self.space()
            yield from read()
            yield from self.space()
            end = yield from self.expect(",", "]")

    def some(self, *stops: str) -> Reading[tuple[str, str | None]]:
        """Read some text before the first of the stops, or else that; neither at the end.

        A stop must not begin with another.
        """
        while True:
            rest = self._all[self._at :]
            found = [(at, stop) for stop in stops if (at := rest.find(stop)) >= 0]
            at, stop = min(found, default=(len(rest), None))
            if stop is None and not self.ended:
                at -= max((_overlap(rest, stop) for stop in stops), default=0)
            if at:
                self._at += at
                return rest[:at], None
            if stop is not None or self.ended:
                self._at += len(stop or "")
                return "", stop
            yield

    def until(self, *stops: str, limit: int | None = None) -> Reading[tuple[str, str]]:
        """Read up to the first of the stops; return what is before it, and it.

        Raises:
            Malformed: none comes, or none within so many characters.
        """
        parts: list[str] = []
        count = 0
        while True:
            part, stop = yield from self.some(*stops)
            count += len(part)
            if limit is not None and count > limit:
                raise Malformed
            if stop is not None:
                return "".join(parts), stop
            if not part:
                raise Malformed
            parts.append(part)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text may begin the stop."""
    lengths = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((n for n in lengths if stop.startswith(text[-n:])), 0)
