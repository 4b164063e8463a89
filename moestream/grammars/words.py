"""Whether a schema's words have values of the kinds that JSON Schema gives them.

Owns the words that are read here before a schema is compiled; of all others the compiler tells.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from moestream.errors import RequestError

_NAMED = ("properties", "$defs", "definitions", "patternProperties")
"""Objects, whose values are schemas."""
_WAYS = ("anyOf", "oneOf", "allOf")
"""Lists of schemas."""
_PARTS = ("items", "additionalProperties", "prefixItems", "not", "if", "then", "else")


def check_words(schema: Mapping[str, Any], what: str, param: str) -> None:
    """See that those who read a schema find what they expect.

    Raises:
        RequestError: a word has a value of another kind.
    """
    open_: list[Any] = [schema]
    while open_:
        found = open_.pop()
        if isinstance(found, Mapping):
            for word, expected in _wrong(found):
                raise RequestError(
                    f"{what} has {word!r}: {found[word]!r:.80}, expected {expected}", param
                )
            named = [found[word] for word in _NAMED if isinstance(found.get(word), Mapping)]
            open_ += [each for schemas in named for each in schemas.values()]
            open_ += [each for word in _WAYS for each in found.get(word, ())]
            open_ += [found[word] for word in _PARTS if word in found]
        elif isinstance(found, list):
            open_ += found


def _wrong(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Words whose values are of another kind, and of which they should be."""
    if not isinstance(schema.get("properties", {}), Mapping):
        yield "properties", "an object of schemas"
    for word in _WAYS:
        if not isinstance(schema.get(word, []), list):
            yield word, "a list of schemas"
    # Without properties, old schemas say of a member so that it must be there.
    required = schema.get("required", []) if "properties" in schema else []
    if not (isinstance(required, list) and all(isinstance(each, str) for each in required)):
        yield "required", "a list of names"
