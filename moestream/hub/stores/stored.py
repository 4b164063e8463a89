"""A model in a store of another program, and what stores have in common: a folder a repository."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moestream.errors import ModelNotFoundError
from moestream.folders import has_suffix
from moestream.hub.notation import SUFFIX, HubReference, choose, group_shards


@dataclass(frozen=True, slots=True)
class Stored:
    """A model by the name that leads to it, its file or first shard, and whose store it is."""

    name: str
    path: Path
    store: str


def find_in(folder: Path, reference: HubReference) -> Path | None:
    """The file, or first shard, that is meant in a repository's folder; None if it is not there."""
    try:
        model = choose(reference, group_shards(file_names(folder)), os.fspath(folder))
    except ModelNotFoundError:
        return None
    return folder / model.names[0]


def models_in(folder: Path, repository: str) -> Iterator[tuple[HubReference, Path]]:
    """The models in a repository's folder: how each is named best, and its file or first shard."""
    models = group_shards(file_names(folder))
    for model in models:
        alone = model.quant is not None and [m.quant for m in models].count(model.quant) == 1
        reference = HubReference(repository, model.quant if alone else model.names[0])
        yield reference, folder / model.names[0]


def file_names(folder: Path) -> list[str]:
    """Paths in a folder of files that are there whole, in order; a broken link is none."""
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        paths = (Path(root, name) for name in sorted(names) if has_suffix(name, SUFFIX))
        found += [path.relative_to(folder).as_posix() for path in paths if path.exists()]
    return found


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, in order; none where it is not there, or may not be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def folder_of(variable: str, *below: str) -> Path | None:
    """The folder that a variable of the environment names, and one below it; None without it."""
    value = os.environ.get(variable)
    return Path(value).expanduser().joinpath(*below) if value else None
