"""Fetches a model: several files at a time, resumed where they broke off, checked, then renamed.

Owns the steps and the partial files. The transfer itself, with its retries, is
``huggingface_hub``'s ``http_get``: its ``hf_hub_download`` starts again from nothing when a run was
broken off, which for files of 20 GB will not do.
"""

import shutil
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from moestream.errors import DownloadError
from moestream.folders import exclusive, models_dir, sync
from moestream.hub.http import endpoint, explain, refuse_other_schemes
from moestream.hub.local import LOCK, PART, repository_folder
from moestream.hub.notation import ModelFiles
from moestream.hub.partial import Cancelled, PartialFile
from moestream.hub.records import hash_file, recorded, write_record
from moestream.hub.repository import HubFile, Listing
from moestream.progress import Progress

CONNECTIONS = 4
_LISTEN_S = 0.2
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
    report = progress or (lambda step, done, total: None)
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
        have = sum(part.stat().st_size for part in parts.values() if part.exists())
        needed = sum(file.size_bytes for file in missing) - have
        if missing:
            _require_room(folder, needed)
            _prepare_client()
            _fetch_all(listing, missing, parts, folder, report)
    return Outcome(path, size, max(needed, 0))


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
    """Fetch in threads; the first failure, or Ctrl-C here, makes the others stop."""
    stop = threading.Event()
    queue = list(reversed(files))
    lock = threading.Lock()
    results: list[Future[None]] = []

    def work(result: Future[None]) -> None:
        try:
            while not stop.is_set():
                with lock:
                    if not queue:
                        break
                    file = queue.pop()
                _fetch(listing, file, parts[file.name], stop, report)
                _keep(folder, file, parts[file.name])
            result.set_result(None)
        except BaseException as error:
            stop.set()
            result.set_exception(error)

    for _ in range(min(CONNECTIONS, len(files))):
        results.append(Future())
        # Daemons: one that waits for a dead connection must not keep the program from ending.
        threading.Thread(target=work, args=(results[-1],), daemon=True).start()
    try:
        errors = [error for result in results if (error := _outcome(result)) is not None]
    finally:
        stop.set()
    for error in sorted(errors, key=lambda error: isinstance(error, Cancelled)):
        raise error


def _outcome(result: Future[None]) -> BaseException | None:
    """Wait for a thread's end: its error, if any."""
    while True:
        # A Ctrl-C just before a wait begins does not end it, and would be heard at its end alone.
        with suppress(TimeoutError):
            return result.exception(timeout=_LISTEN_S)


def _fetch(
    listing: Listing, file: HubFile, path: Path, stop: threading.Event, report: Progress
) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(listing.repository, file.name, revision=listing.commit, endpoint=endpoint())
    path.parent.mkdir(parents=True, exist_ok=True)
    with PartialFile(path, file, stop, report) as part:
        try:
            http_get(
                url,
                cast(BinaryIO, part),
                resume_size=part.tell(),
                headers=build_hf_headers(),
                expected_size=file.size_bytes,
                displayed_filename=file.name,
            )
        except (Cancelled, DownloadError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the disk
                raise DownloadError(
                    f"could not write {path}: {error.strerror}; what was fetched is kept"
                ) from error
            told = explain(error, listing.repository)
            raise type(told)(f"{told}: what was fetched is kept") from error
        part.check()


def _prepare_client() -> None:
    """Keep the package's own bars and warnings off the terminal, and it from being led astray."""
    refuse_other_schemes()
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars("huggingface_hub.http_get")
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def _keep(folder: Path, file: HubFile, part: Path) -> None:
    target = folder / file.name
    part.replace(target)
    sync(target.parent)
    write_record(folder, file.name, file.sha256 or "")
