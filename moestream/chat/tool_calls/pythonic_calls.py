"""Calls that look like a program's: LFM2's list of Python calls, and Gemma 4's objects."""

from dataclasses import dataclass

from moestream.chat.tool_calls.between import Between
from moestream.chat.tool_calls.calls import Calls
from moestream.chat.tool_calls.json_text import GEMMA, PYTHON
from moestream.chat.tool_calls.schemas import Tools
from moestream.chat.tool_calls.text import Malformed, Reading, Text

_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class PythonFormat(Between):
    """``open``, a list of calls with arguments by name, ``close``."""

    def read(self, text: Text, opener: str, calls: Calls, tools: Tools) -> Reading[None]:
        """Read what follows the opener.

        Raises:
            Malformed: it is no call.
        """
        yield from text.space()
        yield from text.expect("[")
        yield from text.items(lambda: _read_call(text, calls))
        yield from text.space()
        yield from text.match(self.close)


def _read_call(text: Text, calls: Calls) -> Reading[None]:
    name, _ = yield from text.until("(", limit=_LONGEST_NAME)
    calls.begin(name)
    members = calls.members()
    yield from text.space()
    end = yield from text.match(")")
    while end != ")":
        key, _ = yield from text.until("=", limit=_LONGEST_NAME)
        if not key.strip().isidentifier():
            raise Malformed
        yield from text.space()
        yield from members.copy(key.strip(), text, PYTHON)
        yield from text.space()
        end = yield from text.expect(",", ")")
        yield from text.space()
    calls.end()


@dataclass(frozen=True, slots=True)
class GemmaFormat(Between):
    """``open``, a name, an object whose keys have no quotes and whose texts have a token's."""

    @property
    def specials(self) -> tuple[str, ...]:
        """Which special tokens are part of the text."""
        return self.open, self.close, *GEMMA.quotes

    def read(self, text: Text, opener: str, calls: Calls, tools: Tools) -> Reading[None]:
        """Read what follows the opener.

        Raises:
            Malformed: it is no call.
        """
        yield from text.space()
        yield from text.expect("call:")
        name = ""
        while (yield from text.peek()) not in ("{", ""):
            name += yield from text.take()
            if len(name) > _LONGEST_NAME:
                raise Malformed
        calls.begin(name)
        yield from calls.copy_object(text, GEMMA)
        calls.end()
        yield from text.space()
        yield from text.match(self.close)
