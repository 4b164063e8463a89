"""The downloaded models on this machine: a folder for each repository, files by the hub's names.

A file under its own name is whole and was checked; what is not yet lies beside it as ``.part``.
"""

import os
import shutil
from pathlib import Path

from moestream.errors import ModelNotFoundError
from moestream.folders import models_dir
from moestream.hub.notation import HubReference, ModelFiles, choose, group_shards

PART = ".part"
RECORD = ".moestream.json"
"""What the hub said of the files when they were fetched."""


def repository_folder(repository: str) -> Path:
    """Where the files of ``ORG/REPO`` lie, or will."""
    return models_dir() / "hub" / repository


def find(reference: HubReference) -> Path | None:
    """Return the file, or first shard, that a reference leads to; None if it is not here."""
    try:
        model = _chosen(reference)
    except ModelNotFoundError:
        return None
    return repository_folder(reference.repository) / model.names[0]


def model_paths(reference: HubReference) -> list[Path]:
    """Return every file of a model that is here, and what is left of broken-off downloads of it.

    Raises:
        ModelNotFoundError: nothing of it is here.
    """
    folder = repository_folder(reference.repository)
    parts = _parts(folder)
    try:
        names = list(_chosen(reference).names)
    except ModelNotFoundError:
        if not parts:
            raise
        names = []
    return [folder / name for name in names] + [
        part for part in parts if not names or _of(part, folder, names)
    ]


def remove(reference: HubReference) -> int:
    """Delete a model's files, and the folders that are then empty; return the bytes freed.

    Raises:
        ModelNotFoundError: nothing of it is here.
    """
    folder = repository_folder(reference.repository)
    freed = 0
    for path in model_paths(reference):
        freed += path.stat().st_size
        path.unlink()
    if not list(folder.rglob("*.gguf")) and not _parts(folder):
        shutil.rmtree(folder)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
    return freed


def _chosen(reference: HubReference) -> ModelFiles:
    folder = repository_folder(reference.repository)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")]
    return choose(reference, group_shards(names), os.fspath(folder))


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob(f"*{PART}"))


def _of(part: Path, folder: Path, names: list[str]) -> bool:
    relative = part.relative_to(folder).as_posix()
    return any(relative.startswith(f"{name}.") for name in names)
