"""The texts of tests/data/heldout as benchmarks cut them; the demo's recipe never saw them."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[2] / "tests" / "data" / "heldout"
PROMPT_CHARACTERS = 400
_PROFILED = 0.6
"""Share of a text that its profile is made of."""


def text(domain: str) -> str:
    """All of one text: ``it``, ``en``, ``de``, ``fr`` or ``code``."""
    return (FOLDER / f"{domain}.txt").read_text(encoding="utf-8")


def parts(domain: str, characters: int = PROMPT_CHARACTERS) -> tuple[str, list[str]]:
    """The part to profile, and passages of the rest, of so many characters."""
    whole = text(domain)
    cut = int(len(whole) * _PROFILED)
    rest = whole[cut:]
    starts = range(0, len(rest) - characters, characters)
    return whole[:cut], [rest[start : start + characters] for start in starts]
