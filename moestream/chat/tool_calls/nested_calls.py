"""Calls whose arguments are tags within tags, each behind a mark: MiniMax-M3.

A parameter's name is its tag; objects have a tag a member, lists one for each item. Whether bare
text is a number is the schema's to say; where it allows a text, it is one, whatever it looks like.
"""

import json
from dataclasses import dataclass

from moestream.chat.tool_calls.calls import Calls, Members
from moestream.chat.tool_calls.schemas import ANY, Tools, value_text
from moestream.chat.tool_calls.text import Malformed, Reading, Text

_LONGEST_TAG = 300
DEEPEST = 32
"""Tags within each other, in an argument."""
ITEM = "item"
"""The tag of each item of a list."""


@dataclass(frozen=True, slots=True)
class NestedFormat:
    """``mark`` is before each tag; ``tag`` is around all calls."""

    name: str
    mark: str
    tag: str
    ends_reasoning: bool = False

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call may begin with."""
        return (f"{self.mark}<{self.tag}>",)

    @property
    def specials(self) -> tuple[str, ...]:
        """Which special tokens are part of the text."""
        return self.mark, f"<{self.tag}>", f"</{self.tag}>"

    def read(self, text: Text, opener: str, calls: Calls, tools: Tools) -> Reading[None]:
        """Read calls up to the end of all.

        Raises:
            Malformed: it is no call.
        """
        while True:
            yield from text.space()
            tag = yield from self._tag(text)
            if tag == f"/{self.tag}":
                return
            if not tag.startswith('invoke name="') or not tag.endswith('"'):
                raise Malformed
            name = tag.removeprefix('invoke name="')[:-1]
            calls.begin(name)
            yield from self._read_members(text, calls.members(), tools, name)
            calls.end()

    def _tag(self, text: Text) -> Reading[str]:
        yield from text.expect(self.mark)
        yield from text.expect("<")
        tag, _ = yield from text.until(">", limit=_LONGEST_TAG)
        return tag

    def _read_members(self, text: Text, members: Members, tools: Tools, name: str) -> Reading[None]:
        while True:
            yield from text.space()
            tag = yield from self._tag(text)
            if tag == "/invoke":
                return
            types = tools.types(name, tag)
            if "string" in types and types != ANY:
                yield from self._stream(text, members, tag)
            else:
                value = yield from self._read_value(text, tag, tools, name, (tag,))
                members.add(tag, value)

    def _stream(self, text: Text, members: Members, tag: str) -> Reading[None]:
        members.begin_string(tag)
        while True:
            part, stop = yield from text.some(f"{self.mark}</{tag}>")
            if stop is not None:
                members.end_string()
                return
            if not part:
                raise Malformed
            members.more(part)

    def _read_value(
        self, text: Text, tag: str, tools: Tools, name: str, path: tuple[str, ...]
    ) -> Reading[str]:
        """Read a value and its end: JSON."""
        types = tools.types(name, *path)
        if len(path) > DEEPEST:
            raise Malformed
        if "string" in types and types != ANY:
            said, _ = yield from text.until(f"{self.mark}</{tag}>")
            return _quoted(said)
        said, _ = yield from text.until(self.mark)
        yield from text.expect("<")
        inner, _ = yield from text.until(">", limit=_LONGEST_TAG)
        if inner == f"/{tag}":
            return _bare(said, types)
        if said.strip():
            raise Malformed
        parts: list[tuple[str, str]] = []
        while inner != f"/{tag}":
            value = yield from self._read_value(text, inner, tools, name, (*path, inner))
            parts.append((inner, value))
            yield from text.space()
            inner = yield from self._tag(text)
        if all(key == ITEM for key, _ in parts) and ("array" in types or types == ANY):
            return f"[{', '.join(value for _, value in parts)}]"
        return f"{{{', '.join(f'{_quoted(key)}: {value}' for key, value in parts)}}}"


def _bare(said: str, types: frozenset[str]) -> str:
    """A value without tags; where none is there, an empty list or object, if it may be one."""
    if not said.strip() and types != ANY:
        for type, empty in (("array", "[]"), ("object", "{}"), ("null", "null")):
            if type in types:
                return empty
    return value_text(said, types)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
