"""What the hub says is in a repository: one request, of which nothing is believed unseen.

Owns the bounds of names, sizes and counts. How the hub is asked is ``http``'s.
"""

import re
from dataclasses import dataclass
from typing import Any

from moestream.errors import DownloadError, ModelNotFoundError
from moestream.folders import has_suffix
from moestream.gguf.mistaken import piece_told
from moestream.hub.http import endpoint, read_json
from moestream.hub.notation import SUFFIX, HubReference, ModelFiles, choose, group_shards
from moestream.offline import require_online

_MOST_FILES = 100_000
_MOST_BYTES = 1 << 48
"""Of a file, more than any disk holds: bigger is a lie, or a mistake."""
_LONGEST_NAME = 1024
_COMMIT = re.compile(r"[0-9A-Za-z]{7,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the hub. ``sha256`` is of its content, None where the hub states none."""

    name: str
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit."""

    repository: str
    commit: str
    files: dict[str, HubFile]

    def models(self) -> list[ModelFiles]:
        """The models in it."""
        return group_shards(self.files)

    def size_bytes(self, model: ModelFiles) -> int:
        """Bytes of all files of a model."""
        return sum(self.files[name].size_bytes for name in model.names)


def list_repository(repository: str) -> Listing:
    """Ask the hub what ``ORG/REPO`` has now.

    Raises:
        ModelNotFoundError: no such repository, or not for us.
        DownloadError: the hub could not be asked.
    """
    require_online(repository)
    told = read_json(f"{endpoint()}/api/models/{repository}?blobs=true", repository)
    return _read(told, repository)


def look_up(reference: HubReference) -> tuple[Listing, ModelFiles]:
    """Ask the hub what the repository has, and return that and the model that is meant.

    Raises:
        ModelNotFoundError: no such repository, or not for us; none or several models fit.
        DownloadError: the hub could not be asked.
    """
    listing = list_repository(reference.repository)
    models = listing.models()
    pieces = [name for name in listing.files if piece_told(name)]
    if not models and pieces:
        raise ModelNotFoundError(
            f"{reference.repository} has {pieces[0]} and the like: pieces of a file that was cut "
            "by bytes, which cannot be pulled; fetch and join them, or take another repository"
        )
    return listing, choose(reference, models, reference.repository)


def _read(told: Any, repository: str) -> Listing:
    """Take over what a hub says, which may say anything."""
    hub = endpoint()
    commit = told.get("sha") if isinstance(told, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise DownloadError(f"{hub} named no commit of {repository}; is it a hub at all?")
    siblings = told.get("siblings") or []
    if not isinstance(siblings, list) or len(siblings) > _MOST_FILES:
        raise DownloadError(f"{hub} does not list the files of {repository}; is it a hub at all?")
    names = [s for s in siblings if isinstance(s, dict) and isinstance(s.get("rfilename"), str)]
    found = [_file(sibling, repository) for sibling in names if _is_wanted(sibling["rfilename"])]
    return Listing(repository, commit, {file.name: file for file in found})


def _is_wanted(name: str) -> bool:
    return has_suffix(name, SUFFIX) or piece_told(name) is not None


def _file(told: dict[str, Any], repository: str) -> HubFile:
    name = told["rfilename"]
    if (wrong := _wrong_name(name)) is not None:
        raise DownloadError(
            f"{endpoint()} lists a file {name[:80]!r} of {repository}, a name that {wrong}; "
            "nothing was fetched: do not trust this hub or repository"
        )
    lfs = told.get("lfs")
    size, sha256 = told.get("size") or 0, None
    if isinstance(lfs, dict):
        size, sha256 = lfs.get("size"), lfs.get("sha256")
    sound = type(size) is int and 0 <= size <= _MOST_BYTES
    if not sound or not (sha256 is None or _SHA256.fullmatch(str(sha256))):
        raise DownloadError(
            f"{endpoint()} says that {name} has {size!r:.40} bytes and sha256 {sha256!r:.80}, "
            "which cannot be; do not trust this hub or repository"
        )
    return HubFile(name, size, sha256)


def _wrong_name(name: str) -> str | None:
    """Say what is wrong with a file's path: it must stay in its folder on any system."""
    steps = name.split("/")
    if name.startswith("/") or "\\" in name or ":" in name:
        return "is a path of its own, not one in the repository"
    if any(step in ("", ".", "..") for step in steps):
        return "leaves its folder"
    if not name.isprintable() or len(name.encode(errors="replace")) > _LONGEST_NAME:
        return "no file can have"
    if any(len(step.encode()) > 200 for step in steps):
        return "is too long"
    return None
