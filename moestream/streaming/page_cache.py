"""The page cache's part of a file: dropping it, and seeing what is left.

For measurements that are to begin as after a restart. Knows nothing of models.

Sources: posix_fadvise(2), mincore(2).
"""

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from moestream.errors import StorageError


def drop_pages(paths: Iterable[Path]) -> int:
    """Drop files' pages from the page cache; return the bytes that stayed, being in use.

    Pages that a process has mapped and touched stay. Where the system does not tell whose pages
    are cached (a file that is not ours), 0 is returned.

    Raises:
        StorageError: this system has no call that drops pages.
        OSError: a file cannot be opened.
    """
    if sys.platform != "linux":
        raise StorageError(
            "pages can be dropped from the page cache on Linux alone; leave --cold out, or "
            "measure after a restart"
        )
    left = 0
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)  # what was just written is dirty, and dirty pages stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            left += _cached_bytes(descriptor) if os.access(path, os.W_OK) else 0
        finally:
            os.close(descriptor)
    return left


def _cached_bytes(descriptor: int) -> int:
    """Bytes of an open file that are in the page cache."""
    n_bytes = os.fstat(descriptor).st_size
    if not n_bytes:
        return 0
    with mmap.mmap(descriptor, n_bytes, access=mmap.ACCESS_READ) as data:
        view = np.frombuffer(data, np.uint8)
        pages = np.zeros(-(-n_bytes // mmap.PAGESIZE), np.uint8)
        mincore = ctypes.CDLL(None, use_errno=True).mincore
        mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        failed = mincore(view.ctypes.data, n_bytes, pages.ctypes.data)
        del view  # else the mapping cannot be closed
        if failed:
            raise OSError(ctypes.get_errno(), "mincore failed")
    return int((pages & 1).sum()) * mmap.PAGESIZE
