"""Calls with a tag for each argument, whose value is bare text.

Qwen3-Coder, MiniMax-M2, DeepSeek V3.2, GLM-4.5 and what is like them: XML to look at, which
nothing is escaped in.
"""

from dataclasses import dataclass

from moestream.chat.tool_calls.calls import Calls, Members
from moestream.chat.tool_calls.json_text import JsonCopy
from moestream.chat.tool_calls.schemas import Tools, value_text
from moestream.chat.tool_calls.sections import Sections
from moestream.chat.tool_calls.text import Malformed, Reading, Text

_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedFormat(Sections):
    """``open``, calls, ``close``; a call's name, then keys and values, then ``call_close``.

    Where ``call_open`` is empty the opener is the call's own; where ``name_close`` is, a name ends
    where the first key or the end begins. ``key_closes``: each may say that the value is text
    (True) or is not (False); None where the schema says it.
    """

    open: str
    name_close: str = ""
    name_end: str = ""
    """What comes behind ``name_close``, after what a call is told besides."""
    key_open: str
    key_closes: tuple[tuple[str, bool | None], ...]
    key_escapes: tuple[tuple[str, str], ...] = ()
    """What keys do not have as it is, and what they have instead."""
    value_open: str = ""
    value_close: str
    call_close: str
    line_breaks: bool = False
    """A line break at each end of a value is not part of it."""

    @property
    def specials(self) -> tuple[str, ...]:
        """Which special tokens are part of the text."""
        return tuple(
            filter(
                None,
                (
                    *(self.open, self.close, self.call_open, self.call_close, self.name_close),
                    *self.tokens,
                    *(self.key_open, self.value_open, self.value_close),
                    *(close for close, _ in self.key_closes),
                ),
            )
        )

    def written_key(self, key: str) -> str:
        """How a key is written."""
        for plain, escaped in self.key_escapes:
            key = key.replace(plain, escaped)
        return key

    def read_call(self, text: Text, calls: Calls, tools: Tools) -> Reading[None]:
        """Read a name, then keys and values."""
        ways = (self.key_open, self.call_close)
        stops = (self.name_close,) if self.name_close else ways
        name, stop = yield from text.until(*stops, limit=_LONGEST_NAME)
        if self.name_end:
            yield from text.until(self.name_end, limit=_LONGEST_NAME)
        calls.begin(name)
        members = calls.members()
        while True:
            if stop not in ways:
                yield from text.space()
                stop = yield from text.expect(*ways)
            if stop == self.call_close:
                calls.end()
                return
            yield from self._read_member(text, members, tools, name.strip())
            stop = ""

    def _read_member(self, text: Text, members: Members, tools: Tools, name: str) -> Reading[None]:
        ends = dict(self.key_closes)
        key, end = yield from text.until(*ends, limit=_LONGEST_NAME)
        key = self._meant_key(key.strip())
        if self.value_open:
            yield from text.space()
            yield from text.expect(self.value_open)
        types = tools.types(name, key)
        if (is_text := ends[end]) is not None:
            types = frozenset({"string"}) if is_text else types - {"string"} or types
        if types == {"string"}:
            yield from self._stream(text, members, key)
            return
        members.add(key, (yield from self._read_value(text, types)))

    def _meant_key(self, key: str) -> str:
        for plain, escaped in reversed(self.key_escapes):
            key = key.replace(escaped, plain)
        return key

    def _read_value(self, text: Text, types: frozenset[str]) -> Reading[str]:
        """Read a value and its end; in JSON what looks like the end may be in a text."""
        start = len(text.read)
        parts: list[str] = []
        try:
            parts.append((yield from text.space()))
            yield from JsonCopy(parts.append).copy(text)
            yield from text.space()
            yield from text.expect(self.value_close)
        except Malformed:
            text.back(start)
            value, _ = yield from text.until(self.value_close)
        else:
            value = "".join(parts)
        if self.line_breaks:
            value = value.removeprefix("\n").removesuffix("\n")
        return value_text(value, types)

    def _stream(self, text: Text, members: Members, key: str) -> Reading[None]:
        members.begin_string(key)
        if self.line_breaks:
            yield from text.match("\n")
        held = ""  # a line break that may be the last
        while True:
            part, stop = yield from text.some(self.value_close)
            if stop is not None:
                members.end_string()
                return
            if not part:
                raise Malformed
            part = held + part
            held = "\n" if self.line_breaks and part.endswith("\n") else ""
            members.more(part[: len(part) - len(held)])
