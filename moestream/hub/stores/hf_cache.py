"""Hugging Face's own cache, which its tools and llama.cpp fill: snapshots of repositories."""

from pathlib import Path

from moestream.hub.notation import HubReference
from moestream.hub.stores.stored import Stored, find_in, folder_of, models_in, subfolders

NAME = "Hugging Face's cache"
_PREFIX = "models--"


def find(reference: HubReference) -> Path | None:
    """The file that a reference leads to, in the newest snapshot that has it."""
    folder = _root() / (_PREFIX + reference.repository.replace("/", "--"))
    found = (find_in(snapshot, reference) for snapshot in _snapshots(folder))
    return next((path for path in found if path is not None), None)


def models() -> list[Stored]:
    """All that are there, each from the newest snapshot that has it."""
    found: dict[str, Stored] = {}
    for folder in subfolders(_root()):
        if not folder.name.startswith(_PREFIX):
            continue
        repository = folder.name.removeprefix(_PREFIX).replace("--", "/", 1)
        for snapshot in _snapshots(folder):
            for reference, path in models_in(snapshot, repository):
                found.setdefault(str(reference), Stored(str(reference), path, NAME))
    return list(found.values())


def _root() -> Path:
    return (
        folder_of("HF_HUB_CACHE")
        or folder_of("HF_HOME", "hub")
        or folder_of("XDG_CACHE_HOME", "huggingface", "hub")
        or Path.home() / ".cache/huggingface/hub"
    )


def _snapshots(folder: Path) -> list[Path]:
    """The one that ``main`` is first, then the newest."""
    try:
        main = (folder / "refs/main").read_text().strip()
    except (OSError, ValueError):
        main = ""
    found = subfolders(folder / "snapshots")
    return sorted(found, key=lambda each: (each.name != main, -each.stat().st_mtime))
