"""Grammars as texts of llguidance's Lark, which is what all others are brought to.

Source: llguidance's docs/syntax.md.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_OPTIONS = {"x-guidance": {"whitespace_pattern": r" |\n{1,2}[ \t]{0,20}"}}
"""White space without end between the parts of JSON would be an answer without end."""


def of_schema(schema: Mapping[str, Any]) -> str:
    """A grammar's body: JSON that the schema allows."""
    return f"%json {json.dumps({**schema, **_OPTIONS})}"


def literal(text: str) -> str:
    """A text as it is."""
    return json.dumps(text, ensure_ascii=False)


def of_regex(pattern: str) -> str:
    """A grammar's body: what a regular expression matches as a whole."""
    # Slashes end it; any that is not escaped is.
    return "/" + re.sub(r"(\\.)|/", lambda match: match[1] or r"\/", pattern, flags=re.S) + "/"
