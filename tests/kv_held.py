"""One layer's keys and values of one sequence, for tests that look into the cache's blocks."""

from copy import copy

import numpy as np

from moestream.backends.kv_blocks import Block, BlockStores
from moestream.backends.kv_rows import BLOCK_POSITIONS, AttentionShape, write_rows


class Held:
    """A store with room for ``positions``; ``dims`` of keys and values, 0 for no values."""

    def __init__(self, kv_heads, positions, dims, kv_types=("f16", "f16"), *, rng=None):
        stores = BlockStores([None, AttentionShape(kv_heads, *dims)], kv_types)
        self.store, self.positions = stores.new(), positions
        self.store.reserve(positions, 0)
        for part, dim in zip(stores.layers[1], dims, strict=True):
            if part is not None and rng is not None:
                rows = rng.standard_normal((kv_heads, positions, dim), np.float32)
                self._write(part, rows)

    def _write(self, part, rows):
        for number, block in enumerate(self.store.blocks):
            here = rows[:, number * BLOCK_POSITIONS :][:, :BLOCK_POSITIONS]
            write_rows(part.of(block)[:, : here.shape[1]], here, part.kv_type)

    def set(self, which, positions, value):
        """Put a value into some positions of keys (0) or values (1)."""
        for position in positions:
            block = self.store.blocks[position // BLOCK_POSITIONS]
            self.store.stores.layers[1][which].of(block)[:, position % BLOCK_POSITIONS] = value

    def rows(self, which):
        """A copy of keys (0) or values (1): (K, positions, ...)."""
        part = self.store.stores.layers[1][which]
        return np.concatenate([part.of(b) for b in self.store.blocks], axis=1)[:, : self.positions]

    def twin(self):
        """The same, in blocks of its own."""
        twin = copy(self)
        twin.store = self.store.fork(self.positions)
        blocks = [Block(self.store.stores.block_bytes) for _ in self.store.blocks]
        for new, old in zip(blocks, self.store.blocks, strict=True):
            new.memory[:] = old.memory
        twin.store.blocks = blocks
        twin.store._address()
        return twin

    def attend(self, ops, q, k, v, start, rule):
        """Attention of a pass of this one sequence."""
        kv_pass = ops.kv_pass([(self.store, start, len(q))])
        return ops.attention((q, k, v), kv_pass, 1, rule)
