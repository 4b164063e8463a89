"""Calls that are JSON objects with a name and arguments, between markers, alone or in a list.

Hermes, Qwen, Granite, ERNIE, Hunyuan, Ling, and Mistral's first models.
"""

from dataclasses import dataclass

from moestream.chat.tool_calls.between import Between
from moestream.chat.tool_calls.calls import Calls
from moestream.chat.tool_calls.json_text import JsonCopy, read_string
from moestream.chat.tool_calls.schemas import Tools
from moestream.chat.tool_calls.text import Reading, Text

_ARGUMENTS = ("arguments", "parameters")


@dataclass(frozen=True, slots=True)
class JsonFormat(Between):
    """``open``, then one call or a list of them, then ``close`` if there is such a marker."""

    is_list: bool = False
    """Whether the model is used to write a list."""

    def read(self, text: Text, opener: str, calls: Calls, tools: Tools) -> Reading[None]:
        """Read what follows the opener.

        Raises:
            Malformed: it is no call.
        """
        yield from text.space()
        if (yield from text.match("[")) is None:
            yield from _read_call(text, calls)
        else:
            yield from text.items(lambda: _read_call(text, calls))
        yield from text.space()
        if self.close:
            yield from text.match(self.close)


def _read_call(text: Text, calls: Calls) -> Reading[None]:
    name, id, arguments = "", None, ""
    yield from text.expect("{")
    while True:
        yield from text.space()
        key = yield from read_string(text)
        yield from text.space()
        yield from text.expect(":")
        yield from text.space()
        if key in ("name", "id"):
            value = yield from read_string(text)
            name, id = (value, id) if key == "name" else (name, value)
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
