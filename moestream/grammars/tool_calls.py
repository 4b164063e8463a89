"""Grammars that make a model write tool calls, in its own format, with arguments of the schema."""

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

from moestream.chat.tool_calls import ToolFormat
from moestream.chat.tool_calls.json_calls import JsonFormat
from moestream.errors import RequestError
from moestream.grammars import lark

Literal = Callable[[str], str]
"""Writes a text of the format, in which names of special tokens stand for these."""


@singledispatch
def rules(format: Any, tools: Sequence[tuple[str, dict[str, Any]]], text: Literal) -> str:
    """The rule ``call``, and what it needs; ``tools`` are names and schemas.

    Raises:
        RequestError: the format cannot be enforced.
    """
    raise RequestError(
        f"this model writes tool calls as {format.name} does, which cannot be enforced; leave "
        'tool_choice at "auto"',
        "tool_choice",
    )


@rules.register
def _json(format: JsonFormat, tools: Sequence[tuple[str, dict[str, Any]]], text: Literal) -> str:
    ways = []
    for name, schema in tools:
        call = {
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": schema or {"type": "object"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        ways.append(lark.of_schema(_lifted(call, schema)))
    return "call: " + "\n  | ".join(ways)


def _lifted(call: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """References of a schema start at its root, which is now another."""
    lifted: dict[str, Any] = {
        word: schema[word] for word in ("$defs", "definitions") if word in schema
    }
    return call | lifted


def of_calls(
    format: ToolFormat,
    tools: Sequence[tuple[str, dict[str, Any]]],
    text: Literal,
    *,
    parallel: bool,
) -> str:
    """A grammar: one call, or with ``parallel`` one or several.

    Raises:
        RequestError: the format cannot be enforced.
    """
    several = "+" if parallel else ""
    opener = text(format.openers[0])
    return f"start: whole{several}\nwhole: {opener} call\n{rules(format, tools, text)}"
