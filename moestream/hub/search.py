"""Which repositories of the hub have GGUF files and what is looked for in their names.

Owns the question, and what of the answer is taken over. What a repository has, ``repository`` asks.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from moestream.errors import DownloadError, ModelNotFoundError
from moestream.hub.http import endpoint, read_json
from moestream.hub.notation import ModelFiles, parse_reference
from moestream.hub.repository import Listing
from moestream.offline import require_online

_USUAL = ("Q4_K_M", "Q4_K_XL", "MXFP4", "MXFP4_MOE", "Q4_K_S", "IQ4_XS", "IQ4_NL", "Q4_0", "Q8_0")
"""Which of a repository's models is meant by most, the first that it has; else the smallest."""
_LONGEST_WORD = 80


@dataclass(frozen=True, slots=True)
class Found:
    """A repository, and what the hub says of it where it says that."""

    repository: str
    downloads: int | None
    """Of the last month."""
    architecture: str | None
    parameters: int | None


def search(words: str, limit: int) -> list[Found]:
    """Ask for repositories with GGUF files, the most downloaded first.

    Raises:
        ModelNotFoundError: there are none.
        DownloadError: the hub could not be asked, or answers as none does.
    """
    require_online("the hub")
    asked = {"search": words, "filter": "gguf", "sort": "downloads", "limit": limit}
    expanded = ("downloads", "gguf")
    query = urlencode([*asked.items(), *(("expand", each) for each in expanded)])
    told = read_json(f"{endpoint()}/api/models?{query}", "a search")
    if not isinstance(told, list):
        raise DownloadError(f"{endpoint()} answers a search with no list; is it a hub at all?")
    found = [each for entry in told[:limit] if (each := _found(entry)) is not None]
    if not found:
        raise ModelNotFoundError(
            f"{endpoint()} has no repository with GGUF files for {words!r}; try fewer words, or a "
            "model's name alone"
        )
    return found


def usual_model(listing: Listing) -> ModelFiles | None:
    """Which of a repository's models most people take; None where it has none."""
    models = listing.models()
    quants = [(model.quant or "").removeprefix("UD-") for model in models]
    for wanted in _USUAL:
        if wanted in quants:
            return models[quants.index(wanted)]
    return min(models, key=listing.size_bytes, default=None)


def _found(entry: Any) -> Found | None:
    """Take over what is said of a repository; None where that is none."""
    name = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        return None
    try:
        repository = parse_reference(name).repository
    except ModelNotFoundError:
        return None
    header = entry.get("gguf")
    header = header if isinstance(header, dict) else {}
    architecture = header.get("architecture")
    known = isinstance(architecture, str) and len(architecture) < _LONGEST_WORD
    return Found(
        repository,
        _count(entry.get("downloads")),
        architecture if known else None,
        _count(header.get("total")),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 62 else None
