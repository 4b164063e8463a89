"""Fetches a model: over several connections, resumed where it broke off, checked, then renamed.

Owns the steps. The client, its names, tokens and proxies are ``huggingface_hub``'s, the transfer is
not: its ``hf_hub_download`` starts from nothing when a run was broken off, with Xet and without,
has one connection a file without it, and refuses files of more than 50 GB.
"""

import shutil
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from moestream.errors import DownloadError
from moestream.folders import exclusive, models_dir, sync
from moestream.hub.local import LOCK, PART, repository_folder
from moestream.hub.notation import ModelFiles
from moestream.hub.partial import PartialFile, there_bytes
from moestream.hub.records import hash_file, recorded, write_record
from moestream.hub.repository import HubFile, Listing
from moestream.hub.transfer import Transfer
from moestream.progress import Progress

_LISTEN_S = 0.2
_LAG_BYTES = 256 << 20
"""That the hash may lag behind before it is told: it takes a second or less."""
_SPARE_BYTES = 64 << 20
"""Left free on the disk when a download is done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a model lies now, and what it took."""

    path: Path
    size_bytes: int
    fetched_bytes: int


def download(listing: Listing, model: ModelFiles, *, progress: Progress | None = None) -> Outcome:
    """Make all files of a model lie here as the hub has them; those that do are left alone.

    A file gets its name only when its sha256 is the hub's. What is broken off is kept, and taken
    up by the next run. A file that the hub has in a newer version is replaced at the end.

    Args:
        listing: what the hub has.
        model: one of its models.
        progress: told the name of a file, its bytes so far and in all.

    Raises:
        DownloadError: no room, no network, no leave, or bytes that are not the hub's.
    """
    report = _in_turn(progress or (lambda step, done, total: None))
    folder = repository_folder(listing.repository)
    size, path = listing.size_bytes(model), folder / model.names[0]
    if all(_here(folder, listing.files[name]) for name in model.names):
        return Outcome(path, size, 0)  # nothing to write: the folder may be one that cannot be
    folder.mkdir(parents=True, exist_ok=True)
    for name in model.names:
        _require_inside(folder, name)
    waiting = f"waiting for another download of {listing.repository}"
    with exclusive(folder / LOCK, on_wait=lambda: report(waiting, 0, size)):
        missing = [f for f in map(listing.files.__getitem__, model.names) if not _here(folder, f)]
        parts = {file.name: _part(folder, file) for file in missing}
        have = sum(there_bytes(parts[file.name], file.size_bytes) for file in missing)
        needed = sum(file.size_bytes for file in missing) - have
        if missing:
            _require_room(folder, needed)
            _fetch_all(listing, missing, parts, folder, report)
    return Outcome(path, size, max(needed, 0))


def _in_turn(progress: Progress) -> Progress:
    """The same, called by one thread at a time."""
    lock = threading.Lock()

    def report(step: str, done: int, total: int) -> None:
        with lock:
            progress(step, done, total)

    return report


def _here(folder: Path, file: HubFile) -> bool:
    """Whether the file is here and is the hub's: by our record, or else by its hash."""
    path = folder / file.name
    if file.sha256 is None:
        raise DownloadError(
            f"the hub states no sha256 of {file.name}, so it could not be checked; take it from a "
            "repository that stores its models with LFS"
        )
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    known = recorded(folder, file.name)
    if known is None and hash_file(path) == file.sha256:
        with suppress(OSError):  # a folder that cannot be written: hashed again the next time
            write_record(folder, file.name, file.sha256)
        return True
    return known == file.sha256


def _part(folder: Path, file: HubFile) -> Path:
    # The hash in the name: what was begun of another version must not be taken up.
    return folder / f"{file.name}.{(file.sha256 or '')[:12]}{PART}"


def _require_inside(folder: Path, name: str) -> None:
    """Refuse to write through a link to another folder: the name would leave ours."""
    inner = (folder / name).parent
    if not inner.resolve().is_relative_to(folder.resolve()):
        raise DownloadError(
            f"{inner} is, or lies in, a link to {inner.resolve()}, out of {folder}; nothing is "
            "written there: remove the link"
        )


def _require_room(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + _SPARE_BYTES:
        raise DownloadError(
            f"the download needs {needed_bytes / 1e9:.2f} GB more, but {folder} has "
            f"{free / 1e9:.2f} GB free; make room (moestream models list shows what is here), or "
            f"set MOESTREAM_CACHE to a folder on another disk than {models_dir().parent}"
        )


def _fetch_all(
    listing: Listing, files: list[HubFile], parts: dict[str, Path], folder: Path, report: Progress
) -> None:
    """Let connections fetch, and meanwhile hash what came, and keep what is whole and the hub's."""
    stop = threading.Event()
    with ExitStack() as stack:
        waiting = []
        for file in files:
            parts[file.name].parent.mkdir(parents=True, exist_ok=True)
            part = PartialFile(parts[file.name], file, stop, report)
            waiting.append(stack.enter_context(part))
        transfer = stack.enter_context(Transfer(listing, waiting, stop, report))
        while waiting:
            busy = waiting[0].hash_some()
            if waiting[0].is_hashed:
                part = waiting.pop(0)
                part.check()
                _keep(folder, part.file, part.path)
            else:
                transfer.listen(0 if busy else _LISTEN_S)
                _tell_checking(waiting[0], report)


def _tell_checking(part: PartialFile, report: Progress) -> None:
    """Say how far the hash is, where it lags behind a file that is all there."""
    size = part.file.size_bytes
    if not part.segments.missing() and size - part.hashed_bytes > _LAG_BYTES:
        report(f"checking {part.file.name}", part.hashed_bytes, size)


def _keep(folder: Path, file: HubFile, part: Path) -> None:
    target = folder / file.name
    part.replace(target)
    sync(target.parent)
    write_record(folder, file.name, file.sha256 or "")
