"""JSON as a model writes it, copied as it comes so that it can be made whole at any place.

What a value's first character has not confirmed yet, a comma, a key, a number that may go on, is
held back. Mends what models get wrong in strings and can be meant in one way only: raw line breaks
and tabs, a backslash before what needs none, half of a surrogate pair.
"""

import json
import re
from collections.abc import Callable

from moestream.chat.tool_calls.text import SPACE, Malformed, Reading, Text

Tell = Callable[[str], None]

_DEEPEST = 128
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS = ("true", "false", "null")
_LONGEST_NUMBER = 400
_CLOSERS = {"{": "}", "[": "]"}


class JsonCopy:
    """Copies one value; what was told and ``closing`` together are a whole value at any time."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._held = ""  # told with the value that follows
        self._open: list[str] = []  # the closers of what is open, outermost first

    @property
    def closing(self) -> str:
        """What is missing of the value, where any of it was told."""
        return "".join(reversed(self._open))

    def copy(self, text: Text) -> Reading[None]:
        """Copy the next value.

        Raises:
            Malformed: it is no JSON, or the text ends within it.
        """
        yield from self._value(text)
        while self._open:
            self._held += yield from text.space()
            if self._open[-1] == "}":
                yield from self._member(text)
            else:
                yield from self._item(text)

    def _member(self, text: Text) -> Reading[None]:
        first = self._just_opened
        if (yield from self._ended(text, first)):
            return
        if (yield from text.peek()) != '"':
            raise Malformed
        key: list[str] = []
        yield from copy_string(text, key.append)
        self._held += "".join(key)
        self._held += yield from text.space()
        self._held += yield from text.expect(":")
        self._held += yield from text.space()
        yield from self._value(text)

    def _item(self, text: Text) -> Reading[None]:
        if not (yield from self._ended(text, self._just_opened)):
            yield from self._value(text)

    def _ended(self, text: Text, first: bool) -> Reading[bool]:
        """Whether what is open ends here; else read the comma before what follows."""
        closer = self._open[-1]
        if (yield from text.match(closer)) is not None:
            self._say(closer)
            self._open.pop()
            self._just_opened = False
            return True
        if not first:
            self._held += yield from text.expect(",")
            self._held += yield from text.space()
        return False

    def _value(self, text: Text) -> Reading[None]:
        self._just_opened = False
        start = yield from text.peek()
        if start in _CLOSERS and start:
            yield from text.take()
            if len(self._open) >= _DEEPEST:
                raise Malformed
            self._say(start)
            self._open.append(_CLOSERS[start])
            self._just_opened = True
        elif start == '"':
            self._say("")
            self._open.append('"')
            yield from copy_string(text, self._tell)
            self._open.pop()
        elif (word := (yield from text.match(*_WORDS))) is not None:
            self._say(word)
        else:
            self._say((yield from _number(text)))

    def _say(self, text: str) -> None:
        self._tell(self._held + text)
        self._held = ""


def copy_string(text: Text, tell: Tell) -> Reading[None]:
    """Copy a string with its quotes; all but the last that is told ends between characters.

    Raises:
        Malformed: the text ends within it.
    """
    tell((yield from text.expect('"')))
    while True:
        part, stop = yield from text.some('"', "\\")
        if stop == '"':
            tell('"')
            return
        if stop == "\\":
            tell((yield from _escape(text)))
        elif part:
            tell(escaped(part, quotes=False))
        else:
            raise Malformed


def escaped(text: str, *, quotes: bool = True) -> str:
    """What stands for the text within a string of JSON; without ``quotes`` it is mended alone."""
    if quotes:
        return json.dumps(text, ensure_ascii=False)[1:-1]
    return text if text.isprintable() else "".join(map(_character, text))


def _character(character: str) -> str:
    return json.dumps(character)[1:-1] if character < " " else character


def _escape(text: Text) -> Reading[str]:
    letter = yield from text.take()
    if letter != "u":
        return f"\\{letter}" if letter and letter in '"\\/bfnrt' else escaped("\\" + letter)
    code = yield from _hex(text)
    if code is None:
        return "\\\\u"
    if 0xD800 <= code < 0xDC00:
        following = yield from text.peek(6)
        if re.fullmatch(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}", following):
            yield from text.take(6)
            return f"\\u{code:04x}{following}"
    return "\\ufffd" if 0xD800 <= code < 0xE000 else f"\\u{code:04x}"


def _hex(text: Text) -> Reading[int | None]:
    digits = yield from text.peek(4)
    if re.fullmatch("[0-9a-fA-F]{4}", digits) is None:
        return None
    yield from text.take(4)
    return int(digits, 16)


def _number(text: Text) -> Reading[str]:
    number = ""
    while len(number) < _LONGEST_NUMBER:
        character = yield from text.peek()
        if not character:
            raise Malformed  # it may have gone on
        if character not in "+-.0123456789eE":
            break
        number += yield from text.take()
    if _NUMBER.fullmatch(number) is None:
        raise Malformed
    return number


def is_space(text: str) -> bool:
    """Whether it is white space and nothing else."""
    return not text.strip(SPACE)
