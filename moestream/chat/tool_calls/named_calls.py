"""Calls that are a name and then a JSON object: DeepSeek V3 to V3.1, R1, Kimi K2, newer Mistral."""

import re
from dataclasses import dataclass

from moestream.chat.tool_calls.calls import Calls
from moestream.chat.tool_calls.schemas import Tools
from moestream.chat.tool_calls.sections import Sections
from moestream.chat.tool_calls.text import Reading, Text

_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFormat(Sections):
    """``open``, calls, ``close``; a call is ``call_open``, a name, ``name_close``, arguments.

    ``before``: what is before the name, if it is there. ``id_open``: after the name, what the model
    calls the call. ``numbered``: the name ends with the call's number, and all of it is the id.
    """

    call_open: str
    call_close: str = ""
    name_close: str
    before: str = ""
    id_open: str = ""
    arguments_close: str = ""
    numbered: bool = False

    @property
    def specials(self) -> tuple[str, ...]:
        """Which special tokens are part of the text."""
        parts = (self.call_open, self.call_close, self.name_close, self.id_open)
        return tuple(filter(None, (self.open, self.close, *parts, *self.tokens)))

    def read_call(self, text: Text, calls: Calls, tools: Tools) -> Reading[None]:
        """Read a name, what the model calls the call, and an object."""
        if self.before:
            yield from text.match(self.before)
        ends = [*filter(None, (self.name_close, self.id_open))]
        name, end = yield from text.until(*ends, limit=_LONGEST_NAME)
        id = None
        if end == self.id_open:
            id, _ = yield from text.until(self.name_close, limit=_LONGEST_NAME)
        if self.numbered:
            id = (self.before + name).strip()
            name = re.sub(r":\d+$", "", name.strip())
        calls.begin(name, id)
        yield from text.space()
        yield from calls.copy_object(text)
        calls.end()
        for end in filter(None, (self.arguments_close, self.call_close)):
            yield from text.space()
            yield from text.match(end)
