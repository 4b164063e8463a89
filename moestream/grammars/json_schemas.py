"""A JSON schema as llguidance can enforce it, and what it asks for and cannot have is left in.

Patterns are brought to Rust's notation. A format that llguidance does not know is left out: by JSON
Schema it tells something of a text, and asks nothing of it.

Source: JSON Schema 2020-12, validation, 6.3.3 and 7; llguidance, docs/json_schema.md.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from moestream.grammars.patterns import to_rust

_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
_VALUES = frozenset(("enum", "const", "default", "examples"))
"""What these hold is no schema."""
_BY_NAME = frozenset(
    ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
)
"""What these hold are schemas by names, which may be those of keywords."""


def enforceable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of the same meaning.

    Raises:
        PatternError: one of its patterns is none.
    """
    copied: dict[str, Any] = json.loads(json.dumps(schema))
    for found in _schemas(copied):
        if isinstance(found.get("format"), str) and found["format"] not in _FORMATS:
            del found["format"]
        if isinstance(found.get("pattern"), str):
            found["pattern"] = to_rust(found["pattern"])
        if isinstance(named := found.get("patternProperties"), dict):
            translated = {to_rust(name): value for name, value in named.items()}
            # Two that are the same belong to each other, which llguidance refuses.
            found["patternProperties"] = translated if len(translated) == len(named) else named
    return copied


def _schemas(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All schemas that are within a schema, and itself; without recursion, as it may be deep."""
    open_: list[Any] = [root]
    while open_:
        value = open_.pop()
        if isinstance(value, list):
            open_ += value
        elif isinstance(value, dict):
            yield value
            for key, inner in value.items():
                if key in _BY_NAME and isinstance(inner, dict):
                    open_ += inner.values()
                elif key not in _VALUES:
                    open_.append(inner)
