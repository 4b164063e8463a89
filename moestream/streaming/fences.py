"""Fences between experts in a file's mapping, so that what is touched is all that is mapped.

A page fault maps what lies around the page that is asked for: 64 KiB, or all of the folio that the
page cache holds it in, up to 2 MiB (Linux 6.18). Neighbours then count as this process's memory. No
fault reaches beyond its area of memory (VMA), though, and areas are told apart by their flags: so
every second one is given one, of those that change nothing here: not to be in a core dump, in which
pages of files are not anyway. Knows nothing of who is touched.

Source: madvise(2); Linux mm/memory.c, do_fault_around, finish_fault and do_set_pmd.
"""

import ctypes
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MOST_AREAS = 65530
"""Of a process, where the system does not say (vm.max_map_count)."""
_SHARE = 0.75
"""Of those that a process may have, for fences."""

_libc = ctypes.CDLL(None, use_errno=True)
madvise, munlock = _libc.madvise, _libc.munlock
madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
munlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Fences:
    """An area for each of ``ranges`` (N, 3): descriptor, address, bytes; ``take_down`` ends them.

    Where a process may not have so many areas, several neighbours share one.
    """

    def __init__(self, ranges: NDArray[np.int64]) -> None:
        self._ends: list[tuple[int, int]] = []
        """First and last address of what is fenced in each mapping."""
        self.are_exact = False
        """Whether each part has an area of its own."""
        if sys.platform == "linux" and len(ranges):
            # A part and the page between it and the next, which belongs to both, are an area each.
            shared = -(-2 * len(ranges) // int(_SHARE * _most_areas()))
            done = [self._put_up(cuts) for cuts in _cuts(ranges, shared)]
            self.are_exact = shared == 1 and all(done)

    def _put_up(self, cuts: list[int]) -> bool:
        """Part areas that begin and end at these addresses, by a flag of every second one."""
        if not cuts:
            return True  # within a page or two, which no fence can part
        if len(cuts) % 2:  # the first and the last have the flag, which what lies beside has not
            cuts = [cuts[0] - mmap.PAGESIZE, *cuts]
        self._ends.append((cuts[0], cuts[-1]))
        flagged = zip(cuts[::2], cuts[1::2], strict=True)
        return not any(madvise(begin, end - begin, mmap.MADV_DONTDUMP) for begin, end in flagged)

    def take_down(self) -> None:
        """Leave the mapping as it was."""
        while self._ends:
            first, last = self._ends.pop()
            madvise(first, last - first, mmap.MADV_DODUMP)


def _cuts(ranges: NDArray[np.int64], count: int) -> Iterator[list[int]]:
    """Where so many neighbours at a time begin and end, in whole pages, for each mapping."""
    page = mmap.PAGESIZE
    for fd in np.unique(ranges[:, 0]):
        own = ranges[ranges[:, 0] == fd][:, 1:]
        begins = own[np.argsort(own[:, 0])].tolist()
        cuts: set[int] = set()
        for first in range(0, len(begins), count):
            (begin, _), (last, size) = begins[first], begins[first : first + count][-1]
            area = -(-begin // page) * page, (last + size) // page * page
            cuts.update(area if area[0] < area[1] else ())
        yield sorted(cuts)


def _most_areas() -> int:
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        return _MOST_AREAS
