"""Keys and values of sequences in blocks of positions, for the backends whose memory is NumPy's.

Owns where a layer's rows lie in a block, and that sequences which begin alike share blocks until
one of them writes. What is in a row is ``kv_rows``'s.
"""

import mmap
import weakref
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends.kv_rows import (
    BLOCK_POSITIONS,
    GGML_TYPES,
    KV_DTYPES,
    AttentionShape,
    KVShapes,
    KVTypes,
    kv_row_bytes,
    read_rows,
    write_rows,
)
from moestream.choices import KVType
from moestream.quants import block_layout

_ALIGNED = 64
"""Bytes that each layer's keys and values begin at a multiple of."""
_MAPPED_BYTES = 1 << 16
"""A block from this size on is a mapping of its own."""
_HUGE_BYTES = 1 << 21
"""And from this size on of huge pages, which attention reads faster."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Where keys, or values, of a layer lie in a block: (heads, positions, dim) at an offset."""

    offset: int
    heads: int
    dim: int
    kv_type: KVType

    @property
    def n_bytes(self) -> int:
        """Bytes in a block."""
        return self.heads * BLOCK_POSITIONS * kv_row_bytes(self.dim, self.kv_type)

    def of(self, block: "Block") -> NDArray[np.generic]:
        """A view of a block: (K, positions, D), or bytes (K, positions, row_bytes) of blocks."""
        data = block.memory[self.offset : self.offset + self.n_bytes]
        return data.view(KV_DTYPES[self.kv_type]).reshape(self.heads, BLOCK_POSITIONS, -1)


class Block:
    """``BLOCK_POSITIONS`` positions of all layers, zero at first."""

    __slots__ = ("__weakref__", "address", "memory")

    def __init__(self, n_bytes: int) -> None:
        self.memory = _zeros(n_bytes)
        self.address = self.memory.ctypes.data


class BlockStores:
    """Makes the stores of one model; see ``KVStores``."""

    def __init__(self, shapes: KVShapes, kv_types: KVTypes) -> None:
        """Lay out a block; a layer without attention has None.

        Raises:
            UnsupportedModelError: see ``kv_row_bytes``.
        """
        self.layers: list[tuple[Rows, Rows | None] | None] = []
        """Keys and values by layer; no values where they are a part of the keys."""
        self.block_bytes = 0
        for shape in shapes:
            self.layers.append(None if shape is None else self._place(shape, kv_types))
        self._live: weakref.WeakSet[Block] = weakref.WeakSet()

    def new(self) -> "BlockStore":
        """Make an empty store."""
        return BlockStore(self, [])

    @property
    def n_bytes(self) -> int:
        """Bytes of all stores together; what they share counts once."""
        return len(self._live) * self.block_bytes

    def block(self) -> Block:
        """Make a block."""
        block = Block(self.block_bytes)
        self._live.add(block)
        return block

    def _place(self, shape: AttentionShape, kv_types: KVTypes) -> tuple[Rows, Rows | None]:
        keys = self._rows(shape.heads, shape.key_dim, kv_types[0])
        if not shape.value_dim:
            return keys, None
        return keys, self._rows(shape.heads, shape.value_dim, kv_types[1])

    def _rows(self, heads: int, dim: int, kv_type: KVType) -> Rows:
        rows = Rows(self.block_bytes, heads, dim, kv_type)
        self.block_bytes += -(-rows.n_bytes // _ALIGNED) * _ALIGNED
        return rows


class BlockStore:
    """One sequence's blocks; see ``KVStore``."""

    def __init__(self, stores: BlockStores, shared: list[Block]) -> None:
        self.stores = stores
        self.blocks = shared
        self._shared = len(shared)  # blocks at the beginning that others may read too
        self._address()

    def reserve(self, positions: int, written: int) -> None:
        """Make room, in blocks of its own from position ``written`` on."""
        first, within = divmod(written, BLOCK_POSITIONS)
        before = len(self.blocks), self._shared
        if first < self._shared:
            old = self.blocks[first]
            del self.blocks[first:]
            self._shared = first
            if within:
                block = self.stores.block()
                block.memory[:] = old.memory
                self.blocks.append(block)
        while len(self.blocks) * BLOCK_POSITIONS < positions:
            self.blocks.append(self.stores.block())
        if before != (len(self.blocks), self._shared):
            self._address()

    def fork(self, length: int) -> "BlockStore":
        """Make a store of the first positions, in the same blocks."""
        shared = self.blocks[: -(-length // BLOCK_POSITIONS)]
        self._shared = max(self._shared, len(shared))
        return BlockStore(self.stores, shared)

    def truncate(self, length: int) -> None:
        """Let go of blocks beyond the first positions."""
        del self.blocks[-(-length // BLOCK_POSITIONS) :]
        self._shared = min(self._shared, len(self.blocks))
        self._address()

    def _address(self) -> None:
        self.addresses = np.array([block.address for block in self.blocks], np.uint64)


def append_rows(
    store: BlockStore, rows: Rows, new: NDArray[np.float32], start: int
) -> NDArray[np.float32]:
    """Write (T, K, D) at position ``start``; return all up to their end as float32, (K, S, D)."""
    put_rows(store, rows, new, start)
    parts = [read_rows(rows.of(block), rows.kv_type) for block in store.blocks]
    return np.concatenate(parts, axis=1)[:, : start + len(new)]


def put_rows(store: BlockStore, rows: Rows, new: NDArray[np.float32], start: int) -> None:
    """Write (T, K, D) at position ``start``."""
    for position in range(start, start + len(new)):
        block, place = divmod(position, BLOCK_POSITIONS)
        write_rows(rows.of(store.blocks[block])[:, place], new[position - start], rows.kv_type)


def rows_between(
    store: BlockStore, rows: Rows, first: int, stop: int, step: int
) -> NDArray[np.float32]:
    """Rows of the only head from a position to before another, each ``step``-th: (n, D)."""
    parts = [np.empty((0, rows.dim), np.float32)]
    for block in range(first // BLOCK_POSITIONS, -(-stop // BLOCK_POSITIONS)):
        past = first - block * BLOCK_POSITIONS
        here = slice(past if past > 0 else past % step, stop - block * BLOCK_POSITIONS, step)
        parts.append(read_rows(rows.of(store.blocks[block])[0, here], rows.kv_type))
    return np.concatenate(parts)


def last_of_rows(store: BlockStore, rows: Rows, stop: int, size: int) -> NDArray[np.float32]:
    """The last ``size`` numbers of rows up to position ``stop``, shared by heads: (S, size)."""
    share, (values, _) = size // rows.heads, block_layout(GGML_TYPES[rows.kv_type])
    whole = -(-share // values) * values  # what is decoded with them
    stored = kv_row_bytes(whole, rows.kv_type) // np.dtype(KV_DTYPES[rows.kv_type]).itemsize
    found = np.empty((stop, rows.heads, share), np.float32)
    for block, first in zip(store.blocks, range(0, stop, BLOCK_POSITIONS), strict=False):
        here = found[first : first + BLOCK_POSITIONS]
        ends = read_rows(rows.of(block)[:, : len(here), -stored:], rows.kv_type)
        here[:] = ends[:, :, -share:].swapaxes(0, 1)
    return found.reshape(stop, size)


def _zeros(n_bytes: int) -> NDArray[np.uint8]:
    """Zeroed bytes, which the system hands out page by page as they are written.

    And has back when they are dropped: blocks from the C library's heap leave holes that a budget
    does not know of.
    """
    if n_bytes < _MAPPED_BYTES:
        return np.zeros(n_bytes, np.uint8)
    memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if n_bytes >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages; only speed is lost
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)
