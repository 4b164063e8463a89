"""Whether what a tool takes is described as JSON Schema has it.

Owns the shapes of its words alone: objects of schemas, lists of them, lists of values. What they
mean, and whether it can be enforced, is the grammars'.
"""

from collections.abc import Iterator, Mapping
from typing import Any

_OBJECTS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Of schemas, by names."""
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
"""Of schemas."""
_SCHEMAS = (
    *("items", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


def wrong_shape(schema: Any) -> str | None:
    """What in a schema is not as it must be, in words; None if nothing is."""
    open_ = [("parameters", schema)]
    while open_:
        where, found = open_.pop()
        if isinstance(found, bool) and where != "parameters":
            continue
        if not isinstance(found, Mapping):
            return f"{where} is no object"
        try:
            open_ += _inner(where, found)
        except _WrongError as error:
            return str(error)
    return None


class _WrongError(Exception):
    pass


def _inner(where: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas in a schema, and where they are; null is as good as no word."""
    for word, value in schema.items():
        at = f"{where}.{word}"
        if value is None:
            continue
        if word in _OBJECTS:
            if not isinstance(value, Mapping):
                raise _WrongError(f"{at} is no object of schemas")
            yield from ((f"{at}.{name}", each) for name, each in value.items())
        elif word in _LISTS or (word == "items" and isinstance(value, list)):
            if not isinstance(value, list):
                raise _WrongError(f"{at} is no list of schemas")
            yield from ((f"{at}.{index}", each) for index, each in enumerate(value))
        elif word in _SCHEMAS:
            yield at, value
        else:
            _check_value(at, word, value)


def _check_value(at: str, word: str, value: Any) -> None:
    if word == "enum" and not isinstance(value, list):
        raise _WrongError(f"{at} is no list")
    if word == "required" and not _are_texts(value):
        raise _WrongError(f"{at} is no list of names")
    if word == "type" and not (isinstance(value, str) or _are_texts(value)):
        raise _WrongError(f"{at} is no type, and no list of types")
    if word in _COUNTS and not (isinstance(value, int) and value >= 0):
        raise _WrongError(f"{at} is no count")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
