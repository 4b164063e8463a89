"""How large a grammar may be before it is compiled.

llguidance calls itself once for each level of a grammar and each link of a chain of references. It
has no limit of its own: where the stack ends, so does the process. Threads have 8 MiB of it, which
are enough for about 2,000 levels of a schema, and for 1,500 rules of 4,000 levels in a chain.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moestream.chat.tool_calls.schemas import resolve
from moestream.errors import RequestError

MOST_RULES = 500
"""Rules of a grammar in GBNF."""
MOST_NESTED = 32
"""Brackets within each other in one of them."""
MOST_RULE_LEVELS = 2000
"""Levels of all of them together."""
_MOST_BYTES = 64 << 10
_MOST_SCHEMA_BYTES = 256 << 10
"""Schemas have descriptions, which cost little."""
_MOST_OBJECTS = 1000
"""Objects of a schema: the time for optional properties grows with the square of their number."""
_MOST_LEVELS = 1000
"""Levels of a schema, with those of all that it refers to."""
_MOST_OBJECTS_TOGETHER = 4000


def check_text(text: str, what: str, param: str) -> None:
    """See that a grammar is not too long.

    Raises:
        RequestError: it is.
    """
    _check(len(text.encode(errors="replace")), _MOST_BYTES, "bytes", what, param)


def check_schema(schema: Mapping[str, Any], what: str, param: str) -> None:
    """See that a schema is neither too long nor too deep, whatever it refers to.

    Raises:
        RequestError: it is.
    """
    size = len(json.dumps(schema, ensure_ascii=False).encode(errors="replace"))
    _check(size, _MOST_SCHEMA_BYTES, "bytes", what, param)
    found = list(_containers(schema))
    _check(_objects(found), _MOST_OBJECTS, "objects", what, param)
    _check(_levels(schema, found), _MOST_LEVELS, "levels with its references", what, param)


def check_together(schemas: Sequence[Mapping[str, Any]], what: str, param: str) -> None:
    """See that schemas which become one grammar are not too many objects.

    Raises:
        RequestError: they are.
    """
    total = sum(_objects(list(_containers(schema))) for schema in schemas)
    _check(total, _MOST_OBJECTS_TOGETHER, "objects", what, param)


def _check(count: int, most: int, unit: str, what: str, param: str) -> None:
    if count > most:
        raise RequestError(
            f"{what} has {count:,} {unit}, expected at most {most:,}: make it smaller", param
        )


def _containers(root: Any) -> Iterator[tuple[Any, Any]]:
    """All objects and lists, each after what it is in; and the ``$id`` that it is under."""
    open_ = [(root, None)]
    while open_:
        value, base = open_.pop()
        if isinstance(value, Mapping):
            base = value.get("$id", base)
        yield value, base
        inner = value.values() if isinstance(value, Mapping) else value
        open_ += [(each, base) for each in inner if isinstance(each, Mapping | list)]


def _objects(found: Sequence[tuple[Any, Any]]) -> int:
    return sum(isinstance(value, Mapping) for value, _ in found)


def _levels(root: Mapping[str, Any], found: Sequence[tuple[Any, Any]]) -> int:
    """The most that a walk along all references goes down, as each is open once at most."""
    heights: dict[int, int] = {}
    for value, _ in reversed(found):
        inner = value.values() if isinstance(value, Mapping) else value
        heights[id(value)] = 1 + max((heights.get(id(each), 0) for each in inner), default=0)
    references = {
        (str(base), value["$ref"])
        for value, base in found
        if isinstance(value, Mapping) and isinstance(value.get("$ref"), str)
    }
    whole = heights[id(root)]  # no target is deeper, also where it is not found here
    return whole + sum(heights.get(id(_target(root, ref)), whole) for _, ref in references)


def _target(root: Mapping[str, Any], reference: str) -> Any:
    """What a pointer leads to; None where it is none."""
    return resolve(reference, root) if reference.startswith("#/") else None
