"""The downloaded models on this machine: a folder for each repository, files by the hub's names.

A file under its own name is whole and was checked; what is not yet lies beside it as ``.part``.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from moestream.errors import ModelNotFoundError
from moestream.folders import find_name, has_suffix, models_dir, temporary_files
from moestream.hub.notation import SUFFIX, HubReference, choose, group_shards, matching
from moestream.hub.records import RECORD, forget

PART = ".part"
LOCK = ".lock"
_PART_NAME = re.compile(rf"(?s:(?P<name>.+))\.[0-9a-f]{{12}}(?:\.note)?{re.escape(PART)}")


def repository_folder(repository: str) -> Path:
    """Where the files of ``ORG/REPO`` lie, or will."""
    folder = models_dir() / "hub"
    for name in repository.split("/"):
        folder /= find_name(name, _names(folder)) or name
    return folder


def find(reference: HubReference) -> Path | None:
    """Return the file, or first shard, that a reference leads to; None if it is not here."""
    folder = repository_folder(reference.repository)
    try:
        model = choose(reference, group_shards(_models(folder)), os.fspath(folder))
    except ModelNotFoundError:
        return None
    return folder / model.names[0]


def here() -> list[tuple[HubReference, Path]]:
    """All models that were fetched whole: how each is named best, and its file or first shard."""
    found = []
    for folder in sorted((models_dir() / "hub").glob("*/*")):
        models = group_shards(_models(folder))
        for model in models:
            alone = model.quant is not None and [m.quant for m in models].count(model.quant) == 1
            what = model.quant if alone else model.names[0]
            repository = folder.relative_to(models_dir() / "hub").as_posix()
            found.append((HubReference(repository, what), folder / model.names[0]))
    return found


def model_paths(reference: HubReference) -> list[Path]:
    """Return every file of a model that is here, and what is left of broken-off downloads of it.

    Raises:
        ModelNotFoundError: several models fit.
    """
    folder = repository_folder(reference.repository)
    parts = {part: _name_of(part, folder) for part in _files(folder) if part.name.endswith(PART)}
    names = {*_models(folder), *parts.values()}
    found = matching(reference, group_shards(names, whole=False))
    if not found:
        return []
    chosen = choose(reference, found, os.fspath(folder)).names if len(found) > 1 else found[0].names
    whole = [folder / name for name in chosen if os.path.lexists(folder / name)]
    return [*whole, *(part for part, name in parts.items() if name in chosen)]


def occupied_bytes(path: Path) -> int:
    """What a file takes on the disk; what is not yet whole has gaps, which take nothing."""
    status = path.lstat()
    if not path.name.endswith(PART):
        return status.st_size
    return min(status.st_size, status.st_blocks * 512)


def remove(reference: HubReference) -> int:
    """Delete a model's files and nothing else; return the bytes freed.

    When it was the last of its repository, what was noted of it goes too, and so do folders that
    are then empty.

    Raises:
        ModelNotFoundError: several models fit.
    """
    folder = repository_folder(reference.repository)
    freed = 0
    try:
        for path in model_paths(reference):
            freed += occupied_bytes(path)
            path.unlink()
            forget(folder, path.relative_to(folder).as_posix())
    finally:
        _tidy(folder)
    return freed


def _tidy(folder: Path) -> None:
    """Delete what belongs to a repository's models when there are none, and empty folders."""
    if any(path.name.endswith(PART) for path in _files(folder)) or _models(folder):
        return
    record = folder / RECORD
    for path in (record, folder / LOCK, *temporary_files(record)):
        path.unlink(missing_ok=True)
    below = [Path(root) for root, _, _ in os.walk(folder, topdown=False)]
    for path in (*below, folder.parent):
        with suppress(OSError):  # not empty
            path.rmdir()


def _models(folder: Path) -> list[str]:
    paths = (path for path in _files(folder) if has_suffix(path.name, SUFFIX))
    return [path.relative_to(folder).as_posix() for path in paths]


def _name_of(part: Path, folder: Path) -> str:
    relative = part.relative_to(folder).as_posix()
    match = _PART_NAME.fullmatch(relative)
    return match["name"] if match else relative.removesuffix(PART)


def _files(folder: Path) -> Iterator[Path]:
    """Files and links, in order; folders that are links are not entered."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root, name) for name in sorted(names))


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []
