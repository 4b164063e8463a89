"""A file that is not yet whole: it grows at its end, and its hash grows with it.

What of a binary file ``http_get`` uses is here: ``write``, ``tell``, ``seek`` and ``truncate``.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from moestream.closing import Closing
from moestream.errors import DownloadError
from moestream.hub.repository import HubFile

_CHUNK_BYTES = 8 << 20


class Cancelled(Exception):  # noqa: N818  # no error: it was asked for
    """Another part of the download failed, or the user gave up."""


class PartialFile(Closing):
    """The bytes of ``file`` so far, at ``path``; begins where an earlier download broke off.

    A context manager. ``report`` is told the name, the bytes so far and in all.
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
        if path.is_symlink() or (path.exists() and path.stat().st_size > file.size_bytes):
            path.unlink()  # a link would have us write elsewhere
        # Unbuffered: what is in the file when the process dies is what was received.
        self._out = path.open("a+b", buffering=0)
        self._size = 0
        self._hash = hashlib.sha256()
        self._read_what_is_there()

    def _read_what_is_there(self) -> None:
        self._out.seek(0)
        while data := self._out.read(_CHUNK_BYTES):
            self._hash.update(data)
            self._size += len(data)
        self._tell_progress()

    def write(self, data: bytes) -> int:
        """Append received bytes.

        Raises:
            Cancelled: the download is to stop.
            DownloadError: more bytes than the hub said there are.
        """
        if self._stop.is_set():
            raise Cancelled
        if self._size + len(data) > self.file.size_bytes:
            self.discard()
            raise DownloadError(
                f"{self.file.name} goes on after the {self.file.size_bytes:,} bytes that the hub "
                "stated; what came was deleted, run it again"
            )
        view = memoryview(data)
        while view:
            view = view[self._out.write(view) :]
        self._hash.update(data)
        self._size += len(data)
        self._tell_progress()
        return len(data)

    def tell(self) -> int:
        """Bytes so far."""
        return self._size

    def seek(self, offset: int) -> int:
        """Go back to the start, as is done when a server cannot send the rest alone."""
        if offset:
            raise ValueError(f"a partial file grows at its end; cannot go to byte {offset}")
        self._size = 0
        self._hash = hashlib.sha256()
        return 0

    def truncate(self) -> int:
        """Drop what is beyond the present position."""
        self._out.truncate(self._size)
        return self._size

    def check(self) -> None:
        """Put the whole file on the disk, if it is the hub's.

        Raises:
            DownloadError: it is not whole (it is kept), or not the hub's (it is deleted).
        """
        if self._size != self.file.size_bytes:
            raise DownloadError(
                f"{self.file.name} broke off after {self._size:,} of {self.file.size_bytes:,} "
                "bytes; run it again, it goes on from there"
            )
        found = self._hash.hexdigest()
        if found != self.file.sha256:
            self.discard()
            raise DownloadError(
                f"{self.file.name} came with sha256 {found}, but the hub states "
                f"{self.file.sha256}; it was deleted: run it again, and look for a proxy or a "
                "failing disk if it happens twice"
            )
        os.fsync(self._out.fileno())

    def discard(self) -> None:
        """Delete what there is."""
        self.path.unlink(missing_ok=True)

    def _tell_progress(self) -> None:
        self._report(self.file.name, self._size, self.file.size_bytes)

    def close(self) -> None:
        """Close the file, which stays as long as it is."""
        self._out.close()
