"""A stored beginning of a prompt on its way into a cache.

Owns how a cache is put together from stored blocks, one after the other. Which blocks these are is
``cache``'s.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.backends import BLOCK_POSITIONS
from moestream.backends.kv_blocks import BlockStore
from moestream.layers.cache import Cache
from moestream.prompt_cache.files import STATE, BlockFiles


class Restoring:
    """Fills an empty cache block by block, as far as the blocks are good."""

    def __init__(
        self, files: BlockFiles, cache: Cache, names: Sequence[str], more_than: int
    ) -> None:
        """Read nothing yet; at the end, no more than ``more_than`` tokens are none."""
        self._files, self._cache, self._names = files, cache, names
        self._more_than = more_than
        self._read = 0
        self._good = True
        cache.reserve(len(names) * BLOCK_POSITIONS)

    def step(self) -> bool:
        """Read a block; return whether there is another to be read.

        Raises:
            OSError: the disk gives no more.
        """
        if self._good and self._read < len(self._names):
            memory = self._store.blocks[self._read].memory
            self._good = self._files.read_into(self._names[self._read], memory)
            self._read += self._good
        return self._good and self._read < len(self._names)

    def finish(self) -> Cache | None:
        """The cache, once no block is left; None if little of it was good.

        Raises:
            OSError: the disk gives no more.
        """
        read = self._read
        if self._cache.caches.recurrent:
            while read and not self._read_state(self._names[read - 1], read):
                read -= 1
        self._files.touch(self._names[:read])
        if read * BLOCK_POSITIONS <= self._more_than:
            return None
        self._cache.length = read * BLOCK_POSITIONS
        self._store.truncate(self._cache.length)
        return self._cache

    @property
    def _store(self) -> BlockStore:
        store = self._cache.store
        assert isinstance(store, BlockStore)
        return store

    def _read_state(self, name: str, blocks: int) -> bool:
        states = self._cache.caches.new()
        arrays = _arrays(states)
        data = np.empty(sum(array.nbytes for array in arrays), np.uint8)
        if not self._files.read_into(name + STATE, data):
            return False
        for array, part in zip(arrays, np.split(data, _ends(arrays)), strict=True):
            array[...] = part.view(np.float32).reshape(array.shape)
        self._cache.adopt(states)
        self._cache.length = blocks * BLOCK_POSITIONS
        self._cache.keep_state()
        return True


def _arrays(cache: Cache) -> list[NDArray[np.float32]]:
    """The arrays of a cache's recurrent layers, in order."""
    return [array for layer in cache.caches.recurrent for array in cache.state(layer)]


def _ends(arrays: list[NDArray[np.float32]]) -> NDArray[np.int64]:
    return np.cumsum([array.nbytes for array in arrays], dtype=np.int64)[:-1]
