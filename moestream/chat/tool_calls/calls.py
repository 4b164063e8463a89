"""The calls that a reader finds, told as events that are sound at every moment.

Owns the numbers of calls and that arguments are one JSON object, whole at every end.
"""

import json
from collections.abc import Callable

from moestream.chat.tool_calls.events import CallArguments, CallBegin, CallEnd, CallEvent
from moestream.chat.tool_calls.json_text import JsonCopy, copy_string, escaped
from moestream.chat.tool_calls.text import Malformed, Reading, Text


class Calls:
    """Tells calls, one after another: ``begin``, arguments in one of the ways below, ``end``."""

    def __init__(self, tell: Callable[[CallEvent], None]) -> None:
        self._tell = tell
        self._count = 0
        self._open = False
        self._closing: Callable[[], str] = lambda: "{}"

    @property
    def open(self) -> bool:
        """Whether a call has begun and not ended."""
        return self._open

    def begin(self, name: str, id: str | None = None) -> None:
        """Begin a call.

        Raises:
            Malformed: that is no name.
        """
        name = name.strip()
        if not name or any(character in name for character in '<>{}"\n'):
            raise Malformed
        self._tell(CallBegin(self._count, name, id))
        self._open, self._closing = True, lambda: "{}"

    def end(self, *, whole: bool = True) -> None:
        """End the call; what is not told of its arguments is closed."""
        self._say(self._closing())
        self._tell(CallEnd(self._count, whole))
        self._count += 1
        self._open = False

    def copy_object(self, text: Text) -> Reading[None]:
        """Copy the arguments, a JSON object as the model writes it, or a string that holds one.

        Raises:
            Malformed: it is none.
        """
        first = yield from text.peek()
        if first == '"':
            parts: list[str] = []
            yield from copy_string(text, parts.append)
            self.set(json.loads("".join(parts)))
            return
        if (yield from text.match("null")) is not None:
            return
        if first != "{":
            raise Malformed
        copy = JsonCopy(self._say)
        self._closing = lambda: copy.closing
        yield from copy.copy(text)

    def members(self) -> "Members":
        """Tell the arguments one by one."""
        members = Members(self._say)
        self._closing = lambda: members.closing
        return members

    def set(self, arguments: str) -> None:
        """Tell all the arguments at once.

        Raises:
            Malformed: they are no JSON object.
        """
        try:
            value = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            raise Malformed from None
        if not isinstance(value, dict):
            raise Malformed
        self._say(arguments if arguments.strip() else "{}")
        self._closing = str

    def _say(self, text: str) -> None:
        if text:
            self._tell(CallArguments(self._count, text))


class Members:
    """Arguments told one by one, where the format has each by itself."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._count = 0
        self._in_string = False

    @property
    def closing(self) -> str:
        """What is missing of the object."""
        if not self._count:
            return "{}"
        return '"}' if self._in_string else "}"

    def add(self, key: str, value: object) -> None:
        """Tell one whole."""
        self._start(key)
        self._say(json.dumps(value, ensure_ascii=False))

    def begin_string(self, key: str) -> None:
        """Begin one that is text."""
        self._start(key)
        self._say('"')
        self._in_string = True

    def more(self, text: str) -> None:
        """Tell more of the text."""
        self._say(escaped(text))

    def end_string(self) -> None:
        """End the text."""
        self._say('"')
        self._in_string = False

    def _start(self, key: str) -> None:
        opener = ", " if self._count else "{"
        self._say(f"{opener}{json.dumps(key, ensure_ascii=False)}: ")
        self._count += 1
