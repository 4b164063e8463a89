"""Grammars as texts of llguidance's Lark, which is what all others are brought to.

Source: llguidance's docs/syntax.md.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_OPTIONS = {"x-guidance": {"whitespace_pattern": r" |\n{1,2}[ \t]{0,20}"}}
"""White space without end between the parts of JSON would be an answer without end."""
SPACE = r"/[ \n]{1,2}/?"
"""White space that may be between marks, and need not."""


def of_schema(schema: Mapping[str, Any]) -> str:
    """What the schema allows, as JSON."""
    return f"%json {json.dumps({**schema, **_OPTIONS})}"


def literal(text: str) -> str:
    """A text as it is."""
    return json.dumps(text, ensure_ascii=False)


def in_order(name: str, parts: Sequence[tuple[str, bool]], between: str) -> Iterator[str]:
    """Rules for parts one after another, of which some must be there (True), ``between`` them.

    The first rule has the name.
    """
    for before in (False, True):
        suffix = "s" if before else ""
        for index in range(len(parts) + 1):
            rule = f"{name}{suffix}{index}" if index or before else name
            yield f"{rule}: {_way(name, parts, index, between if before else '')}"


def _way(name: str, parts: Sequence[tuple[str, bool]], index: int, between: str) -> str:
    if index == len(parts):
        return '""'
    part, needed = parts[index]
    way = f"{between} {part} {name}s{index + 1}"
    suffix = "s" if between else ""
    return way if needed else f"{way} | {name}{suffix}{index + 1}"
