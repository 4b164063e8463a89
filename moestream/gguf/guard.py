"""Notices that a mapped file was cut short: what is missing reads as zeros, not as a bus error.

Without the native extension nothing is noticed, and the bus error ends the process.
"""

import weakref
from mmap import mmap

import numpy as np

try:
    from moestream import _native
except ImportError:  # the reference backend alone
    _native = None  # type: ignore[assignment]


class MappingGuard:
    """Watches a mapping for as long as it exists."""

    def __init__(self, data: mmap) -> None:
        self._mapping = -1
        if _native is not None:
            address = np.frombuffer(data, np.uint8).ctypes.data
            self._mapping = _native.watch_mapping(address, len(data))
            weakref.finalize(data, _native.forget_mapping, self._mapping)

    @property
    def missing_pages(self) -> int:
        """Pages that were asked for and that the file no longer has."""
        return 0 if _native is None else _native.missing_pages(self._mapping)
