"""Ollama's store: a manifest for each name and tag, which says which blob the model is."""

import json
import re
from pathlib import Path

from moestream.errors import ModelNotFoundError
from moestream.hub.stores.stored import Stored, folder_of

NAME = "Ollama"
PREFIX = "ollama:"
_ROOTS = ("/usr/share/ollama/.ollama/models", "/var/lib/ollama/.ollama/models")
"""Where it keeps them as a service, beside each user's own."""
_REGISTRY, _LIBRARY, _TAG = "registry.ollama.ai", "library", "latest"
_PART = re.compile(r"[\w][\w.-]*", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MODEL = "application/vnd.ollama.image.model"
_MOST_BYTES = 1 << 20


def find(what: str) -> Path | None:
    """The file that ``NAME[:TAG]`` leads to, a name also with its owner, or registry.

    Raises:
        ModelNotFoundError: it is no such name.
    """
    name, _, tag = what.partition(":")
    parts = [*name.split("/"), tag or _TAG]
    if not 2 <= len(parts) <= 4 or not all(_PART.fullmatch(part) for part in parts):
        raise ModelNotFoundError(f"{PREFIX}{what} names nothing; expected {PREFIX}NAME[:TAG]")
    whole = [*(_REGISTRY, _LIBRARY)[: 4 - len(parts)], *parts]
    found = (_blob(root, root.joinpath("manifests", *whole)) for root in _roots())
    return next((path for path in found if path is not None), None)


def models() -> list[Stored]:
    """All that are there."""
    found = []
    for root in _roots():
        for manifest in sorted((root / "manifests").glob("*/*/*/*")):
            if (path := _blob(root, manifest)) is not None:
                registry, owner, name, tag = manifest.relative_to(root / "manifests").parts
                shown = [owner, name] if owner != _LIBRARY else [name]
                shown = shown if registry == _REGISTRY else [registry, owner, name]
                found.append(Stored(f"{PREFIX}{'/'.join(shown)}:{tag}", path, NAME))
    return found


def _roots() -> list[Path]:
    own = folder_of("OLLAMA_MODELS")
    return [own] if own else [Path.home() / ".ollama/models", *map(Path, _ROOTS)]


def _blob(root: Path, manifest: Path) -> Path | None:
    """The model's blob, if the manifest names one that is here."""
    try:
        if manifest.stat().st_size > _MOST_BYTES:
            return None
        layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        digests = [each["digest"] for each in layers if each["mediaType"] == _MODEL]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # no manifest
        return None
    if len(digests) != 1 or not _DIGEST.fullmatch(str(digests[0])):
        return None
    path = root / "blobs" / digests[0].replace(":", "-")
    try:
        return path if path.is_file() else None
    except OSError:
        return None
