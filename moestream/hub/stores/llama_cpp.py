"""llama.cpp's older cache: one folder, in which a file's name begins with its repository's.

What it fetches now is in Hugging Face's cache.
"""

import os
import sys
from pathlib import Path

from moestream.errors import ModelNotFoundError
from moestream.hub.notation import HubReference, choose, group_shards
from moestream.hub.stores.stored import Stored, file_names, folder_of

NAME = "llama.cpp's cache"
_MANIFEST = "manifest="


def find(reference: HubReference) -> Path | None:
    """The file that a reference leads to."""
    root, prefix = _root(), reference.repository.replace("/", "_") + "_"
    names = {n.removeprefix(prefix): n for n in file_names(root) if n.startswith(prefix)}
    try:
        model = choose(reference, group_shards(names), os.fspath(root))
    except ModelNotFoundError:
        return None
    return root / names[model.names[0]]


def models() -> list[Stored]:
    """All that it has a manifest of: a file's name does not tell where a repository's ends."""
    found: dict[str, Stored] = {}
    for manifest in sorted(_root().glob(f"{_MANIFEST}*.json")):
        parts = manifest.stem.removeprefix(_MANIFEST).split("=")
        if len(parts) != 3:
            continue
        reference = HubReference("/".join(parts[:2]), None if parts[2] == "latest" else parts[2])
        if (path := find(reference)) is not None:
            found[str(reference)] = Stored(str(reference), path, NAME)
    return list(found.values())


def _root() -> Path:
    home = Path.home()
    usual = home / ("Library/Caches/llama.cpp" if sys.platform == "darwin" else ".cache/llama.cpp")
    return folder_of("LLAMA_CACHE") or folder_of("XDG_CACHE_HOME", "llama.cpp") or usual
