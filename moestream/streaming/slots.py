"""Slots: memory for experts of one size.

Owns the memory and which slots are free. Knows nothing of what is in a slot or why. Slots are
reused, not handed back: giving pages to the system and faulting them in again costs more than the
read that follows.
"""

import ctypes
import mmap
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_HUGE_PAGE = 2 << 20


class Slots(Protocol):
    """Memory for experts of one size, by slot."""

    slot_bytes: int
    num_slots: int
    free: list[int]

    @property
    def n_bytes(self) -> int:
        """Bytes of all slots."""

    def slot_address(self, slot: int) -> int:
        """Where the reader is to put what is for a slot."""

    def trim(self, slot: int) -> bool:
        """Hand a slot's memory back to the system; say whether that could be done."""


class SlotMaker(Protocol):
    """Makes slots for whoever computes with the experts, who lays them out as they are read."""

    @property
    def classes(self) -> Mapping[int, list[int]]:
        """Bytes of a slot to the layers that share slots of one kind."""

    def make(self, layer: int, num_slots: int) -> Slots:
        """Make so many slots for all layers of the kind of ``layer``."""

    def table(self, layer: int) -> NDArray[np.int64]:
        """How a layer's gate, up and down lie in the slots made: (3, 10), see ``SlotMatrix``."""


class AnonymousSlots:
    """``Slots`` in anonymous memory, page-aligned. Pages come as they are written."""

    def __init__(self, slot_bytes: int, num_slots: int) -> None:
        self.slot_bytes = slot_bytes
        self.num_slots = num_slots
        size = -(-slot_bytes * num_slots // _HUGE_PAGE) * _HUGE_PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._memory = mmap.mmap(-1, size, flags=flags)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without huge pages; only speed is lost
                self._memory.madvise(mmap.MADV_HUGEPAGE)
        self.address: int = np.frombuffer(self._memory, np.uint8).ctypes.data
        # Taken from the end: the first slots first, so that a small use stays in few pages.
        self.free = list(range(num_slots - 1, -1, -1))

    @property
    def n_bytes(self) -> int:
        """Bytes of all slots."""
        return self.slot_bytes * self.num_slots

    def slot_address(self, slot: int) -> int:
        """Where a slot begins."""
        return self.address + slot * self.slot_bytes

    def trim(self, slot: int) -> bool:
        """Hand a slot's pages back to the system; it stays usable, and is zero."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return False
        where = (slot * self.slot_bytes, self.slot_bytes)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            # Or the system makes huge pages again of what is left beside what was handed back.
            with suppress(OSError):
                self._memory.madvise(mmap.MADV_NOHUGEPAGE, *where)
        self._memory.madvise(mmap.MADV_DONTNEED, *where)
        return True


def bytes_at(address: int, n_bytes: int) -> NDArray[np.uint8]:
    """View memory by address. The caller must know that it is there, and for how long."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * n_bytes).from_address(address))
