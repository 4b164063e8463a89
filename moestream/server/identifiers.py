"""Identifiers of answers and calls."""

import secrets
import string

_LETTERS = string.ascii_letters + string.digits


def random_id(prefix: str) -> str:
    """An identifier that nothing else has."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(32))
