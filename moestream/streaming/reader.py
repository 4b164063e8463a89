"""The native reader as residency uses it: keys go in, experts in memory or errors come out.

Owns the read methods' descriptors and turns failures into exceptions. Knows nothing of why a key
is read. Source of the rules of O_DIRECT: open(2), notes.
"""

import errno
import mmap
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moestream.choices import ReadMethod
from moestream.closing import Closing
from moestream.errors import (
    ModelFormatError,
    ResourceError,
    StorageError,
    UnsupportedModelError,
)
from moestream.streaming.fences import madvise as _madvise
from moestream.streaming.layout import Layout, mapped_layout, slot_layout
from moestream.streaming.store import ExpertStore

if TYPE_CHECKING:
    from moestream._native import Reader

ABSENT, QUEUED, READING, READY, FAILED = range(5)
"""States of a key, as in ``native/io/reader.h``."""

_SHORT_READ = -1
_THREADS = 4
_AROUND = 1 << 16
"""What Linux maps around a page that is asked for (fault_around_bytes)."""
_PIECE_BYTES = 512 << 10
"""Measured: pieces below this cost the disk speed, larger ones make demand wait behind guesses."""


class ExpertReader(Closing):
    """Reads experts in the background by one method. A context manager; ``close`` ends its threads.

    ``states`` (K,) is the reader's own memory: it changes while it is looked at.
    """

    def __init__(
        self,
        store: ExpertStore,
        method: ReadMethod,
        *,
        threads: int = _THREADS,
        piece_bytes: int = _PIECE_BYTES,
    ) -> None:
        """Start the threads.

        Raises:
            StorageError: the file system cannot read by this method.
        """
        self.method = method
        self._store = store
        self._sizes = {
            store.descriptor(shard): status.st_size
            for shard, status in enumerate(store.file.statuses)
        }
        """Bytes of the shards, by the descriptors that they are mapped through."""
        self._descriptors: list[int] = []
        try:
            self.layout = self._make_layout()
            self._native = _native_reader()(
                self.layout.ranges, threads, piece_bytes, method == "madvise"
            )
        except RuntimeError as error:  # std::system_error
            self._close_descriptors()
            raise ResourceError(
                f"{threads} threads that read experts cannot be started: {error}; raise the limit "
                "of processes or memory (ulimit -a)"
            ) from None
        except BaseException:
            self._close_descriptors()
            raise
        self._held: list[object] = []
        self._slots_are_addresses = True
        self.states = self._native.states.data
        self.submit = self._native.submit
        self.cancel_before = self._native.cancel_before
        self.forget = self._native.forget
        self.wait_done = self._native.wait_any
        self.is_resident = self._native.resident
        self.counters = self._native.counters
        self.inject = self._native.inject
        self.drops_around = True
        """Whether a fault may have mapped what lies beside an expert, so that it goes with it."""

    def _make_layout(self) -> Layout:
        if self.method == "madvise":
            return mapped_layout(self._store)
        if self.method == "direct":
            self._descriptors = _open_direct(self._store)
            return slot_layout(self._store, self._descriptors)
        shards = range(len(self._store.file.shards))
        return slot_layout(self._store, [self._store.descriptor(shard) for shard in shards])

    def wait_any(self, keys: Sequence[int]) -> list[int]:
        """Wait until at least one of these is in memory; return all that are.

        Raises:
            ModelFormatError: the file ended before an expert did: it was cut short.
            StorageError: the disk or its driver reported an error.
        """
        done: list[int] = self._native.wait_any(keys)
        for key in done:
            if self.states[key] == FAILED:
                self._settle(keys)
                raise self._failure(key)
        return done

    def _settle(self, keys: Sequence[int]) -> None:
        """Wait for what is still being read, so that the next try begins every key anew."""
        while under_way := [key for key in keys if self.states[key] not in (READY, FAILED)]:
            self._native.wait_any(under_way)

    def file_order(self, keys: Sequence[int]) -> list[int]:
        """Sort keys by where their first bytes lie."""
        places = self.layout.ranges[list(keys), 0, :2]  # descriptor, offset
        return [keys[i] for i in np.lexsort((places[:, 1], places[:, 0])).tolist()]

    def hold(self, memory: object) -> None:
        """Keep what is read into alive for as long as threads may write there."""
        self._held.append(memory)

    def lock(self, key: int, on: bool) -> bool:
        """Keep a mapped expert's pages in memory, or let them go; say whether that worked."""
        return bool(self._native.lock(key, on) == 0)

    def drop(self, key: int) -> None:
        """Let go of a mapped expert's pages; what is asked for again is paged in again.

        And of those beside it that a fault mapped with it, where it can. A part that is locked
        stays.
        """
        page = mmap.PAGESIZE
        around = _AROUND if self.drops_around else page
        for fd, offset, n_bytes, address, _ in self.layout.ranges[key].tolist():
            begins = address - offset  # the shard's mapping, beside which is other memory
            ends = begins + -(-self._sizes[fd] // page) * page
            first = -(-address // page) * page
            last = max((address + n_bytes) // page * page, first)
            before = max(address // around * around, begins)
            after = min(-(-(address + n_bytes) // around) * around, ends)
            for begin, end in ((before, first), (first, last), (last, after)):
                if end > begin:  # one by one: a part that is locked ends a call
                    _madvise(begin, end - begin, mmap.MADV_DONTNEED)

    def lay_out(self, matrices: NDArray[np.int64]) -> None:
        """From now on, lay out what was read in numbered slots: (K, 3, 10), ``SlotMaker.table``.

        Where ``submit`` wants an address, it then wants a slot's number.
        """
        table = np.concatenate([self.layout.parts[:, :, None], matrices], axis=2)
        self._native.encode(table, max(self.layout.slot_bytes.values()))
        self._slots_are_addresses = False

    def part_addresses(self, key: int, slot_address: int) -> NDArray[np.int64]:
        """Where gate, up and down of an expert begin, or the slot that they are in: (3,)."""
        if not self._slots_are_addresses:
            return np.full(3, slot_address, np.int64)
        addresses: NDArray[np.int64] = self.layout.parts[key] + slot_address
        return addresses

    def close(self) -> None:
        """Stop reading, wait for what is under way, and close the descriptors."""
        self._native.close()
        self._close_descriptors()

    def __del__(self) -> None:
        if hasattr(self, "_native"):  # not if it could not be opened
            self.close()

    def _close_descriptors(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _expert_key(self, key: int) -> int:
        """The key of the expert that ``key`` is read for."""
        return key

    def _failure(self, key: int) -> Exception:
        layer, expert = divmod(self._expert_key(key), self._store.num_experts)
        segment = self._store.layers[layer].segments(expert)[0]
        path = self._store.file.shards[segment.shard]
        code = self._native.error(key)
        if code == _SHORT_READ:
            return ModelFormatError(
                f"{path}: ends before expert {expert} of layer {layer} does; it was cut short "
                "while it ran: restore the file and start again"
            )
        return StorageError(
            f"{path}: expert {expert} of layer {layer} could not be read: {os.strerror(code)}"
        )


def _native_reader() -> "type[Reader]":
    # Imported when needed: without streaming, a checkout that was never compiled still runs.
    try:
        from moestream._native import Reader
    except ImportError as error:
        raise UnsupportedModelError(
            f"streaming needs the compiled part of moestream; install it with pip ({error})"
        ) from None
    return Reader


def _open_direct(store: ExpertStore) -> list[int]:
    """Open the shards once more, so that reads go around the page cache."""
    descriptors: list[int] = []
    try:
        for path in store.file.shards:
            descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | _DIRECT_FLAG))
            if sys.platform == "darwin":
                _bypass_cache(descriptors[-1])
        store.check()
    except BaseException as error:
        for descriptor in descriptors:
            os.close(descriptor)
        if not isinstance(error, OSError):
            raise
        hint = "; use --io pread" if error.errno == errno.EINVAL else ""
        raise StorageError(
            f"{path}: cannot be read around the page cache: {error.strerror}{hint}"
        ) from None
    return descriptors


_DIRECT_FLAG: int = getattr(os, "O_DIRECT", 0)


def _bypass_cache(descriptor: int) -> None:
    """Ask macOS not to cache what is read. What is cached already stays, and is used."""
    import fcntl

    fcntl.fcntl(descriptor, getattr(fcntl, "F_NOCACHE", 48), 1)
