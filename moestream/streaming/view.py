"""How a residency looks to who looks on: marks of each expert. Changes nothing.

Owns what the marks mean, and how often the system is asked of what only it knows.
"""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from moestream.streaming.reader import ExpertReader

IN_MEMORY, KEPT = 1, 2
"""Bits of a mark."""
_LOOKED_AT = 64
"""Experts that the system is asked of at a time: about a third of a millisecond."""

Marks = NDArray[np.uint8]


class PageLooks:
    """Which mapped experts are in the page cache: some are looked up each time, in turn."""

    def __init__(self, reader: ExpertReader, layers: Collection[int], num_experts: int) -> None:
        self._reader = reader
        keys = np.arange(len(reader.states))
        self._keys = keys[np.isin(keys // num_experts, list(layers))]
        self._seen = np.zeros(len(keys), np.uint8)
        self._next = 0

    def marks(self) -> Marks:
        """What was last seen of each key."""
        some = self._keys[self._next : self._next + _LOOKED_AT].tolist()
        self._next = (self._next + len(some)) % max(len(self._keys), 1)
        for key in some:
            self._seen[key] = IN_MEMORY if self._reader.is_resident(key) else 0
        return self._seen
