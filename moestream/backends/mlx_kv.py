"""Keys and values of sequences in MLX's arrays: a buffer of keys and one of values a layer.

MLX's attention wants a sequence's positions one behind the other, so two sequences share nothing.
"""

from typing import Any
from weakref import WeakSet

from moestream.backends.kv_rows import KVShapes, KVTypes
from moestream.backends.mlx_core import mx
from moestream.backends.types import Array
from moestream.errors import UnsupportedModelError

_KV_TYPES = {"f16": mx.float16, "f32": mx.float32}
_FIRST_POSITIONS = 256
_GROWTH = 1.25
"""Times as many positions at least, once there are too few: each is copied four times at most."""


class MlxStores:
    """Makes the stores of one model; see ``KVStores``."""

    def __init__(self, shapes: KVShapes, kv_types: KVTypes, capacity: int) -> None:
        """Raises UnsupportedModelError: ``q8_0``, which MLX's attention does not read."""
        for kv_type in kv_types:
            if kv_type not in _KV_TYPES:
                raise UnsupportedModelError(
                    f"the mlx backend stores keys and values as f16 or f32, not as {kv_type} "
                    "(--cache-type-k, --cache-type-v); the backend 'cpu' can"
                )
        self.shapes, self.capacity = shapes, capacity
        self.types = [_KV_TYPES[kv_type] for kv_type in kv_types]
        self.live: WeakSet[MlxStore] = WeakSet()

    def new(self) -> "MlxStore":
        """Make an empty store."""
        return MlxStore(self, [None if shape is None else (None, None) for shape in self.shapes], 0)

    @property
    def n_bytes(self) -> int:
        """Bytes of all stores."""
        return sum(store.n_bytes for store in self.live)


class MlxStore:
    """One sequence's keys and values, a buffer each (K, S, D) a layer; see ``KVStore``."""

    def __init__(self, stores: MlxStores, layers: list[Any], positions: int) -> None:
        self.layers = layers
        self._stores, self._positions = stores, positions
        stores.live.add(self)

    @property
    def n_bytes(self) -> int:
        """Bytes of all layers."""
        parts = (part for layer in self.layers for part in layer or ())
        return sum(part.nbytes for part in parts if part is not None)

    def reserve(self, positions: int, written: int) -> None:
        """Make the buffers larger by a quarter at least, one by one: old and new need room."""
        if positions <= self._positions:
            return
        more = max(positions, _FIRST_POSITIONS, int(_GROWTH * self._positions))
        positions = min(more, self._stores.capacity)
        for index, shape in enumerate(self._stores.shapes):
            if shape is not None:
                dims = (shape.key_dim, shape.value_dim)
                self.layers[index] = tuple(
                    self._grown(part, (shape.heads, positions, dim), dtype, written)
                    for part, dim, dtype in zip(
                        self.layers[index], dims, self._stores.types, strict=True
                    )
                )
        self._positions = positions

    def fork(self, length: int) -> "MlxStore":
        """Make a store with a copy of the first positions."""
        layers = [
            layer and tuple(part if part is None else part[:, :length] for part in layer)
            for layer in self.layers
        ]
        return MlxStore(self._stores, layers, length)

    def truncate(self, length: int) -> None:
        """Keep the buffers: what comes is written over what was."""

    def _grown(
        self, old: Array | None, shape: tuple[int, int, int], dtype: Any, written: int
    ) -> Array | None:
        if not shape[2]:
            return None
        new = mx.zeros(shape, dtype=dtype)
        if old is not None:
            new[:, :written] = old[:, :written]
        return new
