"""Why a grammar is refused, in plain words instead of llguidance's."""

import json
import re
from collections.abc import Callable

_BEFORE = re.compile(
    r"\A(?:at \d+\(\d+\): |\d+\(\d+\): |failed to compile JSON schema: |"
    r"invalid regex .*? \(in regex\): |regex parse error: (?:.*?error: )?|[Pp]arser [Ee]rror: )+",
    re.DOTALL,
)
_AFTER = re.compile(r" \((?:at|SearchRegex) .*\Z|, retrieving .*\Z", re.DOTALL)
_LOOKS = "look-arounds and word boundaries are not supported"
_Say = str | Callable[[re.Match[str]], str]
_PLAIN: tuple[tuple[str, _Say], ...] = (
    (r"Unimplemented keys: (\[.*\])", lambda found: f"{_listed(found[1])} is not supported"),
    (r"Invalid type: (.*)", r"there is no type '\1'"),
    (r"Resource '(.*?)' is not present.*", r"'\1' is not in the schema, and nothing is fetched"),
    (r"Pointer '(.*)' does not exist", r"the reference to '#\1' leads nowhere"),
    (r"oneOf .*", "more than one of oneOf may fit: use anyOf"),
    (r"Unsatisfiable schema: Regex is empty.*", "nothing fits its pattern"),
    (r"Unsatisfiable schema: (.*)", r"nothing fits it: \1"),
    (r"look-around, .*", _LOOKS),
    (r"lookarounds .*; (?:Start|End)\w* .*", "^ and $ may only stand at the ends of a pattern"),
    (r"lookarounds .*", _LOOKS),
    (r"backreferences .*", "references to groups are not supported"),
    (r"Failed to generate regex .*", "its range of numbers is not supported"),
    (
        r"patternProperty regexes /(.*)/ and /(.*)/ are not disjoint",
        "two patterns of patternProperties may fit the same name",
    ),
    (r"min/maxProperties only .*", "minProperties and maxProperties need all properties required"),
    (r"Too many items.*|.*[Tt]oo (?:complex|large|many|big).*|.*fuel.*", "it is too large"),
    (r"token .* doesn't satisfy the grammar.*", "the token does not fit"),
    (r"NoExtensionBias.*", "nothing may follow"),
)


def plain(error: str) -> str:
    """Return what llguidance says of a grammar as a person would."""
    first, *others = error.splitlines() or [""]
    told = " ".join([first, *(line for line in others if line.startswith("error:"))])
    told = _AFTER.sub("", _BEFORE.sub("", told)).strip()
    for pattern, sentence in _PLAIN:
        if found := re.fullmatch(pattern, told, re.DOTALL):
            return sentence(found) if callable(sentence) else found.expand(sentence)
    return told[:1].lower() + told[1:]


def _listed(names: str) -> str:
    """What a JSON list of names says, in a sentence."""
    return ", ".join(map(repr, json.loads(names)))
