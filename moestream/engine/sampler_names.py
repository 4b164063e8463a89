"""Which samplers there are, and the names that people have for them."""

from collections.abc import Sequence

SAMPLERS = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typ_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
"""In llama.cpp's order, which is the usual one."""
_OTHER_NAMES = {"nucleus": "top_p", "temp": "temperature", "typ": "typ_p", "typical_p": "typ_p"}
_LETTERS = dict(zip("edskypmxt", SAMPLERS, strict=True))


def read_samplers(given: str | Sequence[str]) -> tuple[str, ...]:
    """An order of samplers: names, llama.cpp's other names for them, or its letters as one text.

    Raises:
        ValueError: one is not known.
    """
    if isinstance(given, str):
        names = [each for part in given.split(";") for each in part.split(",")]
        if len(names) == 1 and all(letter in _LETTERS for letter in given):
            return tuple(_LETTERS[letter] for letter in given)
        given = names
    plain = {name.replace("_", ""): name for name in (*SAMPLERS, *_OTHER_NAMES)}
    found = []
    for name in given:
        known = plain.get(name.strip().lower().replace("-", "").replace("_", ""))
        if known is None:
            raise ValueError(f"{name!r}, expected names of {', '.join(SAMPLERS)}")
        found.append(_OTHER_NAMES.get(known, known))
    return tuple(found)
