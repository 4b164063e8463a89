"""The calls that a reader finds, told as events that are sound at every moment.

Owns the numbers of calls, and that arguments are one JSON object, whole at every end.
"""

import json
import re
from collections.abc import Callable

from moestream.chat.tool_calls.events import CallArguments, CallBegin, CallEnd, CallEvent
from moestream.chat.tool_calls.json_text import (
    JSON,
    Dialect,
    JsonCopy,
    Tell,
    escaped,
    read_json,
    read_string,
)
from moestream.chat.tool_calls.text import Malformed, Reading, Text

_NAME = re.compile(r"[\w.:/$-]{1,256}")


class Calls:
    """Tells calls, one after another: ``begin``, arguments in one of the ways below, ``end``."""

    def __init__(self, tell: Callable[[CallEvent], None]) -> None:
        self.open = False
        """Whether a call has begun and not ended."""
        self._tell = tell
        self._count = 0
        self._closing: Callable[[], str] = _nothing

    def begin(self, name: str, id: str | None = None) -> None:
        """Begin a call.

        Raises:
            Malformed: that is no name.
        """
        name = name.strip()
        if _NAME.fullmatch(name) is None:
            raise Malformed
        self._tell(CallBegin(self._count, name, id))
        self.open, self._closing = True, _nothing

    def end(self, *, whole: bool = True) -> None:
        """End the call; what is not told of its arguments is closed."""
        self._say(self._closing())
        self._tell(CallEnd(self._count, whole))
        self._count += 1
        self.open = False

    def copy_object(self, text: Text, dialect: Dialect = JSON) -> Reading[None]:
        """Copy the arguments, an object as the model writes it, or a string that holds one.

        Raises:
            Malformed: it is none.
        """
        first = yield from text.peek()
        if first == '"':
            self.set((yield from read_string(text)))
        elif first == "{":
            copy = JsonCopy(self._say, dialect)
            self._closing = lambda: copy.closing
            yield from copy.copy(text)
        else:
            yield from text.expect("null")

    def set(self, arguments: str) -> None:
        """Tell all the arguments at once.

        Raises:
            Malformed: they are no JSON object.
        """
        arguments = arguments.strip()
        if arguments in ("", "null"):
            return
        if not isinstance(read_json(arguments), dict):
            raise Malformed
        self._say(arguments)
        self._closing = str

    def members(self) -> "Members":
        """Tell the arguments one by one."""
        members = Members(self._say)
        self._closing = lambda: members.closing
        return members

    def _say(self, text: str) -> None:
        if text:
            self._tell(CallArguments(self._count, text))


class Members:
    """Arguments told one by one, where the format has each by itself."""

    def __init__(self, say: Tell) -> None:
        self._say = say
        self._told = False
        self._value_closing: Callable[[], str] = str

    @property
    def closing(self) -> str:
        """What is missing of the object."""
        return f"{self._value_closing()}}}" if self._told else "{}"

    def add(self, key: str, value: str) -> None:
        """Tell one whole, whose value is text of JSON."""
        self._tell(self._before(key) + value)

    def copy(self, key: str, text: Text, dialect: Dialect) -> Reading[None]:
        """Copy one as the model writes it.

        Raises:
            Malformed: it is no value.
        """
        copy = JsonCopy(self._tell, dialect, before=self._before(key))
        self._value_closing = lambda: copy.closing
        yield from copy.copy(text)

    def begin_string(self, key: str) -> None:
        """Begin one that is text."""
        self._tell(self._before(key) + '"')
        self._value_closing = lambda: '"'

    def more(self, text: str) -> None:
        """Tell more of the text."""
        self._tell(escaped(text))

    def end_string(self) -> None:
        """End the text."""
        self._tell('"')
        self._value_closing = str

    def _before(self, key: str) -> str:
        return f"{', ' if self._told else '{'}{json.dumps(key, ensure_ascii=False)}: "

    def _tell(self, text: str) -> None:
        self._told = True
        self._say(text)


def _nothing() -> str:
    return "{}"
