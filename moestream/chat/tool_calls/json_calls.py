"""Calls that are JSON objects with a name and arguments, between markers, alone or in a list.

Hermes, Qwen, Granite, ERNIE, Hunyuan, Ling, MiniMax-M1, Cohere, and Mistral's first models.
"""

from dataclasses import dataclass

from moestream.chat.tool_calls.between import Between
from moestream.chat.tool_calls.calls import Calls
from moestream.chat.tool_calls.json_text import JsonCopy, read_string
from moestream.chat.tool_calls.schemas import Tools
from moestream.chat.tool_calls.text import Reading, Text

_NAMES, _IDS = ("name", "tool_name"), ("id", "tool_call_id")
_ARGUMENTS = ("arguments", "parameters")


@dataclass(frozen=True, slots=True)
class JsonFormat(Between):
    """``open``, then one call or a list of them, then ``close`` if there is such a marker."""

    is_list: bool = False
    """Whether the model is used to write a list."""
    is_lines: bool = False
    """Whether it writes several one after the other, without a list."""
    name_key: str = "name"
    arguments_key: str = "arguments"
    id_key: str = ""
    """What it is used to call these; "" where it gives calls no ids."""

    def read(self, text: Text, opener: str, calls: Calls, tools: Tools) -> Reading[None]:
        """Read what follows the opener.

        Raises:
            Malformed: it is no call.
        """
        yield from text.space()
        if (yield from text.match("[")) is None:
            yield from text.expect("{")
            yield from _read_call(text, calls)
            yield from text.space()
            while self.is_lines and (yield from text.match("{")):
                yield from _read_call(text, calls)
                yield from text.space()
        else:
            yield from _read_list(text, calls)
        yield from text.space()
        if self.close:
            yield from text.match(self.close)


def _read_list(text: Text, calls: Calls) -> Reading[None]:
    while True:
        yield from text.space()
        yield from text.expect("{")
        yield from _read_call(text, calls)
        yield from text.space()
        if (yield from text.expect(",", "]")) == "]":
            return


def _read_call(text: Text, calls: Calls) -> Reading[None]:
    """Read what follows the brace."""
    name, id, arguments = "", None, ""
    while True:
        yield from text.space()
        key = yield from read_string(text)
        yield from text.space()
        yield from text.expect(":")
        yield from text.space()
        if key in _NAMES or key in _IDS:
            value = yield from read_string(text)
            name, id = (value, id) if key in _NAMES else (name, value)
        elif key in _ARGUMENTS and name and not calls.open:
            calls.begin(name, id)
            yield from calls.copy_object(text)
        else:
            parts: list[str] = []
            yield from JsonCopy(parts.append).copy(text)
            arguments = "".join(parts) if key in _ARGUMENTS else arguments
        yield from text.space()
        if (yield from text.expect(",", "}")) == "}":
            break
    if not calls.open:
        calls.begin(name, id)
        calls.set(arguments)
    calls.end()
