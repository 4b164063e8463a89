"""How much of a file's mapping is this process's memory: what was touched or locked, in pages.

Owns the locks and the order in which the rest is let go, the least recently used first. Who is to
be locked is its caller's choice.
"""

import mmap
from collections.abc import Sequence
from itertools import islice

import numpy as np

from moestream.streaming.fences import Fences, munlock
from moestream.streaming.reader import QUEUED, READING, ExpertReader


class Footprint:
    """Mapped experts by key, within ``room_bytes``.

    With ``fenced``, nothing beside them is mapped when they are.
    """

    def __init__(self, reader: ExpertReader, room_bytes: int, *, fenced: bool) -> None:
        self._reader = reader
        self.room_bytes = room_bytes
        ranges, page = reader.layout.ranges, mmap.PAGESIZE
        sizes, begins = ranges[:, :, 2], ranges[:, :, 3]
        pages = -(-(begins + sizes) // page) - begins // page
        self._bytes: list[int] = (np.where(sizes > 0, pages, 0).sum(axis=1) * page).tolist()
        self._touched: dict[int, None] = {}  # not locked, the least recently used first
        self.locked = bytearray(len(ranges))
        self.n_bytes = 0
        """Of what is touched or locked."""
        self._fences = Fences(ranges[sizes > 0][:, [0, 3, 2]] if fenced else ranges[:0, 0, :3])
        reader.drops_around = not self._fences.are_exact

    def some(self, keys: Sequence[int], shares: int) -> int:
        """How many of a layer's keys take one of so many parts of the room: one at least."""
        return max(self.room_bytes // (shares * self._bytes[keys[0]]), 1) if keys else 1

    def touch(self, keys: Sequence[int]) -> None:
        """Note that these are used now, and let go of others as far as room is short."""
        for key in keys:
            if key in self._touched:
                del self._touched[key]
            elif self.locked[key]:
                continue
            else:
                self.n_bytes += self._bytes[key]
            self._touched[key] = None
        above = self.n_bytes - self.room_bytes
        if above > 0:
            for key in self._oldest(len(self._touched) - len(keys), above):
                del self._touched[key]
                self.n_bytes -= self._bytes[key]
                self._reader.drop(key)

    def _oldest(self, most: int, n_bytes: int) -> list[int]:
        """Among the first ``most``, as many as take so much, and of which none is being read.

        What a thread still reads would be mapped after it was let go of, and counted by nobody.
        """
        states, found = self._reader.states, []
        for key in islice(self._touched, max(most, 0)):
            if n_bytes <= 0:
                break
            if states[key] not in (QUEUED, READING):
                found.append(key)
                n_bytes -= self._bytes[key]
        return found

    def lock(self, key: int) -> bool:
        """Keep an expert in memory; say whether that worked."""
        if not self._reader.lock(key, True):
            return False
        if key in self._touched:
            del self._touched[key]
        else:
            self.n_bytes += self._bytes[key]
        self.locked[key] = 1
        return True

    def unlock(self, key: int) -> None:
        """Let one go that was locked."""
        self._reader.lock(key, False)
        self.locked[key] = 0
        self.n_bytes -= self._bytes[key]
        self._unlock_ends(key)
        self._reader.drop(key)

    def _unlock_ends(self, key: int) -> None:
        """The pages at either end are shared with a neighbour, which may be locked still."""
        page, last_key = mmap.PAGESIZE, len(self.locked) - 1
        for _, _, n_bytes, address, _ in self._reader.layout.ranges[key].tolist():
            if n_bytes and not self.locked[max(key - 1, 0)]:
                munlock(address // page * page, page)
            if n_bytes and not self.locked[min(key + 1, last_key)]:
                munlock((address + n_bytes - 1) // page * page, page)

    def close(self) -> None:
        """Unlock everything, and leave the mapping as it was found."""
        for key, locked in enumerate(self.locked):
            if locked:
                self.unlock(key)
        self._fences.take_down()
