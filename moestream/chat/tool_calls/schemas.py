"""What the tools of a request say of their parameters' types.

For formats whose values are bare text: whether ``5`` is a number or a text is the schema's to say.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from moestream.chat.tool_calls.json_text import read_json
from moestream.chat.tool_calls.text import Malformed

ANY = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
_MOST_REFERENCES = 16
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}


class Tools:
    """The tools that a model may call, as a request names them."""

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        """``tools``: functions, each by itself or as OpenAI's ``{"type", "function"}``."""
        functions = (tool.get("function", tool) for tool in tools)
        self._schemas = {
            str(function.get("name")): function.get("parameters") or {} for function in functions
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._schemas)

    def parameters(self, name: str) -> dict[str, Any]:
        """The schema of a tool's arguments."""
        schema = self._schemas.get(name)
        return dict(schema) if isinstance(schema, Mapping) else {}

    def types(self, name: str, *path: str) -> frozenset[str]:
        """The types that JSON Schema names of what a parameter may be, or of what is within it.

        In a list, any part of a path stands for all items.
        """
        root = self._schemas.get(name)
        if not isinstance(root, Mapping):
            return ANY
        found: Any = root
        for key in path:
            found = _within(found, key, root, _MOST_REFERENCES, set())
        return _types(found, root, _MOST_REFERENCES, {})


def value_text(text: str, types: frozenset[str]) -> str:
    """A bare text as JSON: a string where the types want it, else what it is, else a string."""
    stripped = text.strip()
    if types != {"string"}:
        stripped = _PYTHON_WORDS.get(stripped, stripped)
        try:
            value = read_json(stripped)
        except Malformed:
            pass
        else:
            if _type_names(value) & types or "string" not in types:
                return stripped
    return json.dumps(text, ensure_ascii=False)


def _type_names(value: Any) -> frozenset[str]:
    if isinstance(value, bool):
        return frozenset({"boolean"})
    if isinstance(value, int):
        return frozenset({"integer", "number"})
    names = {float: "number", str: "string", dict: "object", list: "array"}
    return frozenset({names.get(type(value), "null")})


def _types(
    schema: Any, root: Mapping[str, Any], left: int, known: dict[str, frozenset[str]]
) -> frozenset[str]:
    """``known``: by references, each of which is followed once, as they may lead to each other."""
    if not isinstance(schema, Mapping) or not left:
        return ANY
    if isinstance(reference := schema.get("$ref"), str):
        if reference not in known:
            known[reference] = ANY
            known[reference] = _types(resolve(reference, root), root, left - 1, known)
        return known[reference]
    said = schema.get("type")
    if isinstance(said, str):
        return frozenset({said})
    if isinstance(said, list):
        return frozenset(map(str, said))
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if isinstance(values, list) and values:
        return frozenset().union(*map(_type_names, values))
    for word in ("anyOf", "oneOf", "allOf"):
        if isinstance(ways := schema.get(word), list) and ways:
            found = [_types(way, root, left - 1, known) for way in ways]
            return frozenset.intersection(*found) if word == "allOf" else frozenset().union(*found)
    return ANY


def _within(schema: Any, key: str, root: Mapping[str, Any], left: int, followed: set[str]) -> Any:
    """What a schema says of a member or of items; of several ways, the first that says anything.

    ``followed``: references, each of which is followed once, as they may lead to each other.
    """
    schema, left = _followed(schema, root, left, followed)
    if key in (members := _members(schema)):
        return members[key]
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), Mapping):
            return schema[word]
    # A list takes any name for an item's: what describes the name goes before it.
    ways = sorted(_ways(schema), key=lambda way: not _describes(way, key, root, left, set()))
    found = (_within(way, key, root, left - 1, followed) for way in ways)
    return next((each for each in found if each is not None), None)


def _describes(
    schema: Any, key: str, root: Mapping[str, Any], left: int, followed: set[str]
) -> bool:
    """Whether it, or one of its ways, has a member of this name; ``followed`` as in ``_within``."""
    schema, left = _followed(schema, root, left, followed)
    if key in _members(schema):
        return True
    return any(_describes(way, key, root, left - 1, followed) for way in _ways(schema))


def _followed(
    schema: Any, root: Mapping[str, Any], left: int, followed: set[str]
) -> tuple[Mapping[str, Any], int]:
    """Where a schema's references lead, and how many levels are left; one that says nothing."""
    while isinstance(schema, Mapping) and left:
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema, left
        if reference in followed:
            break
        followed.add(reference)
        schema, left = resolve(reference, root), left - 1
    return {}, 0


def _members(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _ways(schema: Mapping[str, Any]) -> list[Any]:
    said = (schema.get(word) for word in ("anyOf", "oneOf", "allOf"))
    return [way for each in said if isinstance(each, list) for way in each]


def resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """What a reference within a schema leads to, or None."""
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
