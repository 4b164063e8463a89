r"""Regular expressions of ECMA-262, which are JSON Schema's, in the notation that llguidance reads.

That is Rust's: there ``\d``, ``\w`` and ``\s`` are Unicode's, a ``[`` in a class begins another,
and ``&&``, ``--`` and ``~~`` are operations. What neither has is left for llguidance to refuse.

Source: ECMA-262, 22.2 (without the flag u) and annex B.1.2; docs.rs/regex, syntax.
"""

import re

_TOKEN = re.compile(
    r"\\(?:c[A-Za-z]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]+\}|[pP]\{[^}]*\}|0(?!\d)|.)|.",
    re.DOTALL,
)
_SPACES = r"\t\n\x{B}\f\r \x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"
_CLASSES = {r"\d": "0-9", r"\w": "0-9A-Za-z_", r"\s": rf"{_SPACES}\x{{FEFF}}"}
_ANY_IN_LINE = r"[^\n\r\x{2028}\x{2029}]"
_ANY, _NONE = "(?s:.)", r"[^\x{0}-\x{10FFFF}]"
_DOTS_ALL = re.compile(r"\(\?[a-z]*s")


class PatternError(ValueError):
    """It is no regular expression."""


def to_rust(pattern: str, *, whole: bool = False) -> str:
    """Return the same pattern in Rust's notation.

    With ``whole``, ``^`` before it and ``$`` after it are left out.

    Raises:
        PatternError: it ends in the middle of a class or of an escape.
    """
    tokens = _TOKEN.findall(pattern)
    if whole:
        tokens = tokens[tokens[:1] == ["^"] : -1 if tokens[-1:] == ["$"] else None]
    dot = "." if _DOTS_ALL.search(pattern) else _ANY_IN_LINE
    tokens.reverse()
    out = []
    while tokens:
        token = tokens.pop()
        if token == "[":
            out.append(_class(tokens))
        elif token == ".":
            out.append(dot)
        else:
            out.append(_set(token) or (_escaped(token) if token[0] == "\\" else token))
    return "".join(out)


def _class(tokens: list[str]) -> str:
    """A class, from after its ``[``; the tokens are taken from the list's end."""
    negated = tokens[-1:] == ["^"]
    if negated:
        tokens.pop()
    parts: list[str] = []
    while (token := _next(tokens)) != "]":
        parts.append(_member(token))
        # A minus beside a set of characters, or before the end, is a minus.
        if tokens[-2:][:1] not in ([], ["]"]) and tokens[-1] == "-":
            tokens.pop()
            last = _next(tokens)
            ends = (parts[-1], _member(last))
            is_range = not (_set(token) or _set(last))
            parts[-1:] = [f"{ends[0]}-{ends[1]}"] if is_range else [ends[0], r"\x{2D}", ends[1]]
    if not parts:
        return _ANY if negated else _NONE
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _next(tokens: list[str]) -> str:
    if not tokens:
        raise PatternError("a [ has no ]")
    return tokens.pop()


def _member(token: str) -> str:
    if token == r"\b":
        return r"\x{8}"
    return _set(token) or (_escaped(token) if token[0] == "\\" else _literal(token))


def _set(token: str) -> str:
    r"""The class that a token such as ``\D`` stands for."""
    members = _CLASSES.get(token.lower(), "")
    return members and f"[{'^' if token[-1].isupper() else ''}{members}]"


def _escaped(token: str) -> str:
    """A character that is written with a backslash."""
    if token == "\\":
        raise PatternError("it ends in a backslash")
    if token == r"\0":
        return r"\x{0}"
    if token[1] == "c" and len(token) == 3:
        return f"\\x{{{ord(token[2]) % 32:X}}}"
    return token if token[1].isalnum() else _literal(token[1])


def _literal(character: str) -> str:
    return character if character.isalnum() else f"\\x{{{ord(character):X}}}"
