"""Rows of a table that stays in its file, read by number in the background.

Owns the descriptor that they are read through, the threads, and the count of what was read. What is
read again, the page cache has or has not. Knows nothing of what a row means, nor of what asks.
"""

import os
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.errors import ModelFormatError, ModelNotFoundError, StorageError

_THREADS = 4
_LEAST_ROWS = 4
"""For a thread of its own, at least so many."""
_FEW = 64
"""So many are looked for in the page cache first: threads would take cores from the kernels."""
_NO_WAIT = getattr(os, "RWF_NOWAIT", None)


@dataclass(frozen=True, slots=True)
class Table:
    """Where a table lies: rows of ``row_bytes``, from ``offset`` of a file on.

    ``status`` is what the file was when its header was read.
    """

    path: Path
    status: os.stat_result
    offset: int
    row_bytes: int


@dataclass(slots=True)
class RowCounts:
    """What was asked for, and of that, what was read: a row once for all tokens of a chunk."""

    tokens: int = 0
    rows: int = 0
    read_bytes: int = 0

    def per_token(self) -> dict[str, float] | None:
        """Rows and bytes read for a token on average; None if there were none."""
        if not self.tokens:
            return None
        return {"rows": self.rows / self.tokens, "bytes": self.read_bytes / self.tokens}


class Rows:
    """Rows that are being read."""

    def __init__(
        self, parts: Sequence[Future[None]], data: NDArray[np.uint8], order: NDArray[np.intp]
    ) -> None:
        """``order`` says which of the rows read is each that was asked for."""
        self._parts, self._data, self._order = parts, data, order

    def take(self) -> NDArray[np.uint8]:
        """Wait for them: (n, row_bytes).

        Raises:
            ModelFormatError: the file ended before a row did.
            StorageError: the disk or its driver reported an error.
        """
        for part in self._parts:
            part.result()
        return self._data[self._order]


class RowReader:
    """Reads rows of one table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.counts = RowCounts()

    def begin(self, rows: NDArray[np.int64], tokens: int) -> Rows:
        """Begin to read rows by number, for so many tokens.

        Raises:
            ModelNotFoundError, ModelFormatError: the file is gone, or another.
        """
        found, order = np.unique(rows, return_inverse=True)
        row_bytes = self._table.row_bytes
        data = np.empty((len(found), row_bytes), np.uint8)
        self.counts.tokens += tokens
        self.counts.rows += len(found)
        self.counts.read_bytes += data.size
        fd, pool = self._opened
        left = self._not_cached(fd, found, data) if len(found) <= _FEW else np.arange(len(found))
        size = max(-(-len(left) // _THREADS), _LEAST_ROWS)
        parts = [
            pool.submit(self._read, fd, found, left[i : i + size], data)
            for i in range(0, len(left), size)
        ]
        return Rows(parts, data, order.ravel())

    def _not_cached(
        self, fd: int, rows: NDArray[np.int64], into: NDArray[np.uint8]
    ) -> NDArray[np.intp]:
        """Read what the page cache has; return the places of the others."""
        left = []
        for place, row in enumerate(rows.tolist()):
            offset = self._table.offset + row * self._table.row_bytes
            try:
                done = 0 if _NO_WAIT is None else os.preadv(fd, [into[place]], offset, _NO_WAIT)
            except OSError:  # it would wait, or this file cannot tell; whoever waits tells errors
                done = 0
            if done < into.shape[1]:
                left.append(place)
        return np.array(left, np.intp)

    @cached_property
    def _opened(self) -> tuple[int, ThreadPoolExecutor]:
        """A descriptor and threads, both of them let go with the reader."""
        path, then = self._table.path, self._table.status
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ModelNotFoundError(f"{path}: cannot be opened: {error.strerror}") from None
        weakref.finalize(self, os.close, fd)
        now = os.fstat(fd)
        if (now.st_dev, now.st_ino, now.st_size) != (then.st_dev, then.st_ino, then.st_size):
            raise ModelFormatError(f"{path}: was replaced while it was opened; open it again")
        if hasattr(os, "posix_fadvise"):  # or a row would bring its neighbours along
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rows")
        weakref.finalize(self, pool.shutdown, wait=False)
        return fd, pool

    def _read(
        self, fd: int, rows: NDArray[np.int64], places: NDArray[np.intp], into: NDArray[np.uint8]
    ) -> None:
        table = self._table
        try:
            for row, place in zip(rows[places].tolist(), places.tolist(), strict=True):
                _read_whole(fd, memoryview(into[place]), table.offset + row * table.row_bytes)
        except EOFError:
            raise ModelFormatError(
                f"{table.path}: ends before row {row} of a table does; it was cut short while it "
                "ran: restore the file and start again"
            ) from None
        except OSError as error:
            raise StorageError(
                f"{table.path}: row {row} of a table could not be read: {error.strerror}"
            ) from None


def _read_whole(fd: int, into: "memoryview[Any]", offset: int) -> None:
    while into:
        done = os.preadv(fd, [into], offset)
        if not done:
            raise EOFError
        into, offset = into[done:], offset + done
