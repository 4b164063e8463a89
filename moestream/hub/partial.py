"""A file that is not yet whole: its segments grow from several threads, its hash follows them.

Beside it lies the note of which of its bytes are there: a process that is killed loses what it had
not written, and no more. Without a note, all that there is has no gaps.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import psutil

from moestream.closing import Closing
from moestream.errors import DownloadError
from moestream.hub.repository import HubFile
from moestream.hub.segments import Segments

_HASHED_AT_ONCE = 4 << 20
_LARGEST_NOTE = 64 << 20


class Cancelled(Exception):  # noqa: N818  # no error: it was asked for
    """Another part of the download failed, or the user gave up."""


class Superseded(Exception):  # noqa: N818  # no error: another connection does it
    """Another connection fetches the whole file."""


class PartialFile(Closing):
    """The bytes of ``file`` so far, at ``path``; begins where an earlier download broke off.

    A context manager. A segment is written by one thread at a time. ``report`` is told the name,
    the bytes so far and in all.
    """

    def __init__(
        self,
        path: Path,
        file: HubFile,
        stop: threading.Event,
        report: Callable[[str, int, int], None],
    ) -> None:
        self.path = path
        self.file = file
        self._stop = stop
        self._report = report
        self._lock = threading.Lock()
        self._only: int | None = None
        """The thread that fetches the whole file, where a server has no ranges."""
        self._note_path = note_path(path)
        for each in (path, self._note_path):
            if each.is_symlink():
                each.unlink()  # it would have us write elsewhere
            each.touch()
        # Unbuffered: what is in the file when the process dies is what was received.
        self._out = path.open("r+b", buffering=0)
        self._note = self._note_path.open("r+b", buffering=0)
        self._started_s = _machine_start()
        self.segments = self._take_up()
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._tell_progress()

    def _take_up(self) -> Segments:
        size = self.file.size_bytes
        segments = _read(self.path, size, self._started_s)
        if segments is None:  # of no download of this file
            self._out.truncate(0)
            self._note.truncate(0)
            segments = Segments.begun(size, 0)
        _put(self._note, segments.note(self._started_s), 0)
        return segments

    def write(self, index: int, data: bytes) -> None:
        """Append received bytes to a segment.

        Raises:
            Cancelled, Superseded: the bytes are not wanted any more.
            DownloadError: more bytes than the hub said there are.
        """
        if self._stop.is_set():
            raise Cancelled
        position, end = self.segments.position(index), self.segments.end(index)
        if position + len(data) > end:
            self.discard()
            raise DownloadError(
                f"{self.file.name} goes on after the {end:,} bytes that were asked for; what came "
                "was deleted, run it again"
            )
        _put(self._out, data, position)
        if position + len(data) == end:
            os.fsync(self._out.fileno())  # before it is noted as whole
        with self._lock:
            self._require_mine()
            self.segments.counts[index] += len(data)
            place, noted = self.segments.note_of(index)
            _put(self._note, noted, place)
            self._tell_progress()

    def begin_anew(self) -> None:
        """Have this thread alone fetch the file, from its start.

        That is done when a server sends all of a file whatever part of it is asked for.

        Raises:
            Superseded: another thread does it.
        """
        with self._lock:
            self._require_mine()
            self._only = threading.get_ident()
            self.segments.counts[:] = [0] * len(self.segments.counts)
            _put(self._note, self.segments.note(self._started_s), 0)
            self._hash, self._hashed = hashlib.sha256(), 0
            self._tell_progress()

    def _require_mine(self) -> None:
        if self._only not in (None, threading.get_ident()):
            raise Superseded

    def wanted(self, index: int) -> int | None:
        """The segment that this thread is to go on with: ``index``, while it is not whole.

        Of a file that it fetches alone, the first that is not; None when there is nothing to do.
        """
        if self._only == threading.get_ident():
            return next(iter(self.segments.missing()), None)
        return None if self.segments.is_whole(index) else index

    def hash_some(self) -> bool:
        """Hash on, in the thread that calls this, if there is something; say whether there was."""
        with self._lock:
            digest, start = self._hash, self._hashed
            stop = min(self.segments.prefix_bytes, start + _HASHED_AT_ONCE)
        if stop == start:
            return False
        digest.update(_read_at(self._out.fileno(), stop - start, start))
        with self._lock:
            if digest is self._hash:  # it was not begun anew meanwhile
                self._hashed = stop
        return True

    @property
    def hashed_bytes(self) -> int:
        """How far the hash is."""
        return self._hashed

    @property
    def is_hashed(self) -> bool:
        """Whether all is there, and hashed."""
        return self._hashed == self.file.size_bytes

    def check(self) -> None:
        """Put the whole file on the disk, if it is the hub's.

        Raises:
            DownloadError: it is not; it is deleted.
        """
        found = self._hash.hexdigest()
        if found != self.file.sha256:
            self.discard()
            raise DownloadError(
                f"{self.file.name} came with sha256 {found}, but the hub states "
                f"{self.file.sha256}; it was deleted: run it again, and look for a proxy or a "
                "failing disk if it happens twice"
            )
        os.fsync(self._out.fileno())
        self._note_path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete what there is."""
        self._note_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _tell_progress(self) -> None:
        self._report(self.file.name, self.segments.there_bytes, self.file.size_bytes)

    def close(self) -> None:
        """Close the file, which stays as it is."""
        self._out.close()
        self._note.close()


def note_path(path: Path) -> Path:
    """Where the note of what is at ``path`` lies."""
    return path.with_name(f"{path.stem}.note{path.suffix}")


def there_bytes(path: Path, size_bytes: int) -> int:
    """How many bytes of a file are at ``path``, which may not be there."""
    segments = _read(path, size_bytes, _machine_start())
    return 0 if segments is None else segments.there_bytes


def _read(path: Path, size_bytes: int, started_s: int) -> Segments | None:
    """What there is: by the note, or all that there is where none was written."""
    try:
        length = path.stat().st_size
    except OSError:
        return None
    try:
        with note_path(path).open("rb") as file:
            note = file.read(_LARGEST_NOTE)
    except OSError:
        note = b""
    if not note:
        return Segments.begun(size_bytes, length) if length <= size_bytes else None
    segments = Segments.read(note, size_bytes, started_s)
    return segments if segments is not None and segments.reach_bytes <= length else None


def _put(file: FileIO, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file.fileno(), view, position)
        position += written
        view = view[written:]


def _read_at(descriptor: int, length: int, position: int) -> bytes:
    parts = []
    while length and (data := os.pread(descriptor, length, position)):
        parts.append(data)
        position, length = position + len(data), length - len(data)
    return b"".join(parts)


def _machine_start() -> int:
    return int(psutil.boot_time())
