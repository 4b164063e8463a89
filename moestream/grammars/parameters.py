"""What a tool's schema says of its arguments, for formats that write each by itself.

Such a format has an order, names, and a value each: what a schema says beyond that about the object
as a whole cannot be enforced, nor can what it says of a text that is written bare.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moestream.errors import RequestError

_WHOLE = ("anyOf", "oneOf", "allOf", "$ref", "patternProperties", "minProperties", "if", "not")
_DEFINITIONS = ("$defs", "definitions")
_PLAIN = {"type", "anyOf", "title", "description", "default", "examples", "format", *_DEFINITIONS}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument: its name, its schema with what it refers to, whether it must be there."""

    name: str
    schema: Mapping[str, Any]
    required: bool


def parameters(tool: str, schema: Mapping[str, Any]) -> list[Parameter]:
    """A tool's arguments, in the schema's order.

    Raises:
        RequestError: the schema says what cannot be enforced argument by argument.
    """
    if beyond := [word for word in _WHOLE if word in schema]:
        raise refusal(tool, f"uses {beyond[0]} for all arguments together")
    properties = schema.get("properties") or {}
    required = schema.get("required") or ()
    if unknown := set(required) - set(properties):
        raise refusal(tool, f"requires {sorted(unknown)[0]!r}, which it does not describe")
    shared = definitions(schema)
    return [
        Parameter(name, {**shared, **found} if isinstance(found, Mapping) else {}, name in required)
        for name, found in properties.items()
    ]


def definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What references in a schema may lead to; they start at the root, wherever that is put."""
    return {word: schema[word] for word in _DEFINITIONS if word in schema}


def texts(tool: str, parameter: Parameter, types: frozenset[str]) -> list[str] | None:
    """What a bare text may be: one of these, or anything (empty). None: it is JSON.

    Raises:
        RequestError: it is text that the schema says more about.
    """
    if "string" not in types:
        return None
    schema = parameter.schema
    values = schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else []
    if values and all(isinstance(value, str) for value in values):
        return list(values)
    if values or not _is_plain(schema):
        raise refusal(tool, f"says more of the text {parameter.name!r} than that it is one")
    return []


def _is_plain(schema: Any) -> bool:
    """Whether it says of what types a value may be, and nothing else of it."""
    if not isinstance(schema, Mapping):
        return schema is True
    ways = schema.get("anyOf") or ()
    return not schema.keys() - _PLAIN and all(_is_plain(way) for way in ways)


def refusal(tool: str, what: str) -> RequestError:
    """An error that tells what of a tool cannot be enforced, and what to do."""
    return RequestError(
        f"the schema of the tool {tool!r} {what}; this model's way to write tool calls cannot be "
        'held to that. Leave tool_choice at "auto", or make the schema simpler',
        "tools",
    )
