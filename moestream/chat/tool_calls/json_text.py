"""JSON, and what models write in its place, copied as JSON as it comes.

It can be made whole at any place: what a value's first character has not confirmed yet, a comma, a
key, a number that may go on, is held back. Mends what is wrong in strings and can be meant in one
way only: raw line breaks, a backslash before what needs none, half of a surrogate pair.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moestream.chat.tool_calls.text import Malformed, Reading, Text

Tell = Callable[[str], None]

_DEEPEST = 128
_LONGEST = 400
"""Characters of a number, or of a key without quotes."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LOW_SURROGATE = re.compile(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_CLOSERS = {"{": "}", "[": "]"}
_WORDS = ("true", "false", "null")


@dataclass(frozen=True, slots=True)
class Dialect:
    """A way to write values.

    ``quotes``: what a text stands between, and whether backslashes escape within. ``words``: names
    of values. ``bare_keys``: keys may have no quotes.
    """

    quotes: Mapping[str, bool]
    words: Mapping[str, str] = field(default_factory=lambda: {w: w for w in _WORDS})
    bare_keys: bool = False


JSON = Dialect({'"': True})
PYTHON = Dialect(
    {'"': True, "'": True},
    {"True": "true", "False": "false", "None": "null"} | {word: word for word in _WORDS},
)
GEMMA = Dialect({'<|"|>': False, '"': True}, bare_keys=True)


class JsonCopy:
    """Copies one value; what was told and ``closing`` together are a whole value at any time."""

    def __init__(self, tell: Tell, dialect: Dialect = JSON, *, before: str = "") -> None:
        """``before``: what is told before the value, and not without it."""
        self.told = False
        """Whether any of it was."""
        self._tell = tell
        self._dialect = dialect
        self._held = before  # told with the value that follows
        self._open: list[str] = []  # the closers of what is open, outermost first
        self._first = False  # what is open has nothing in it yet

    @property
    def closing(self) -> str:
        """What is missing of the value, where any of it was told."""
        return "".join(reversed(self._open))

    def copy(self, text: Text) -> Reading[None]:
        """Copy the next value.

        Raises:
            Malformed: it is none, or the text ends within it.
        """
        yield from self._value(text)
        while self._open:
            self._held += yield from text.space()
            if (yield from self._ended(text)):
                continue
            if self._open[-1] == "}":
                yield from self._key(text)
            yield from self._value(text)

    def _ended(self, text: Text) -> Reading[bool]:
        """Whether what is open ends here; else read the comma before what follows."""
        closer = self._open[-1]
        if (yield from text.match(closer)) is not None:
            self._say(closer)
            self._open.pop()
            self._first = False
            return True
        if not self._first:
            self._held += yield from text.expect(",")
            self._held += yield from text.space()
        return False

    def _key(self, text: Text) -> Reading[None]:
        quote = yield from text.match(*self._dialect.quotes)
        if quote is not None:
            key: list[str] = []
            yield from copy_string(text, key.append, quote, self._dialect)
            self._held += "".join(key)
            self._held += yield from text.space()
            self._held += yield from text.expect(":")
        elif self._dialect.bare_keys:
            bare, _ = yield from text.until(":", limit=_LONGEST)
            self._held += json.dumps(bare.strip(), ensure_ascii=False) + ":"
        else:
            raise Malformed
        self._held += yield from text.space()

    def _value(self, text: Text) -> Reading[None]:
        self._first = False
        if (quote := (yield from text.match(*self._dialect.quotes))) is not None:
            self._say("")
            self._open.append('"')
            yield from copy_string(text, self._tell, quote, self._dialect)
            self._open.pop()
        elif (opener := (yield from text.match(*_CLOSERS))) is not None:
            if len(self._open) >= _DEEPEST:
                raise Malformed
            self._say(opener)
            self._open.append(_CLOSERS[opener])
            self._first = True
        elif (word := (yield from text.match(*self._dialect.words))) is not None:
            self._say(self._dialect.words[word])
        else:
            self._say((yield from _number(text)))

    def _say(self, text: str) -> None:
        self.told = True
        self._tell(self._held + text)
        self._held = ""


def read_json(text: str) -> Any:
    """The value that a text of JSON stands for.

    Raises:
        Malformed: it is none.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Malformed from None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def read_string(text: Text) -> Reading[str]:
    """Read a string of JSON.

    Raises:
        Malformed: it is none.
    """
    parts: list[str] = []
    yield from text.expect('"')
    yield from copy_string(text, parts.append, '"', JSON)
    return str(json.loads("".join(parts)))


def copy_string(text: Text, tell: Tell, quote: str, dialect: Dialect) -> Reading[None]:
    """Copy as a string of JSON what follows an opening quote; tell nothing but whole characters.

    Raises:
        Malformed: the text ends within it.
    """
    stops = (quote, "\\") if dialect.quotes[quote] else (quote,)
    tell('"')
    while True:
        part, stop = yield from text.some(*stops)
        if stop == quote:
            tell('"')
            return
        if stop is not None:
            tell((yield from _escape(text)))
        elif part:
            tell(escaped(part))
        else:
            raise Malformed


def escaped(text: str) -> str:
    """What stands for the text within a string of JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _escape(text: Text) -> Reading[str]:
    letter = yield from text.take()
    if letter == "u":
        return (yield from _code(text))
    if letter == "'":
        return "'"
    return f"\\{letter}" if letter and letter in '"\\/bfnrt' else escaped("\\" + letter)


def _code(text: Text) -> Reading[str]:
    digits = yield from text.peek(4)
    if re.fullmatch("[0-9a-fA-F]{4}", digits) is None:
        return "\\\\u"
    yield from text.take(4)
    code = int(digits, 16)
    if 0xD800 <= code < 0xDC00:
        following = yield from text.peek(6)
        if _LOW_SURROGATE.fullmatch(following):
            yield from text.take(6)
            return f"\\u{digits}{following}"
    return "\\ufffd" if 0xD800 <= code < 0xE000 else f"\\u{digits}"


def _number(text: Text) -> Reading[str]:
    number = ""
    while len(number) < _LONGEST:
        character = yield from text.peek()
        if not character:
            raise Malformed  # it may have gone on
        if character not in "+-.0123456789eE":
            break
        number += yield from text.take()
    if _NUMBER.fullmatch(number) is None:
        raise Malformed
    return number
