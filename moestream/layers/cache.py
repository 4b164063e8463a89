"""What a model remembers of the tokens seen so far: a state a layer.

Owns how long a cache is and what it may hold; the memory of keys and values is the backend's.
Knows nothing of tokens: ``Session`` keeps those.

An attention layer remembers keys and values of every position, and can forget the last ones. A
recurrent layer has one state for all that came before, which cannot be taken back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakSet

from moestream.backends import Array, AttentionShape, Backend, KVStore
from moestream.choices import KVType
from moestream.errors import ContextLengthError

KVTypes = tuple[KVType, KVType]
"""How keys and how values are stored."""


@dataclass(frozen=True, slots=True)
class RecurrentShape:
    """Float32 arrays of fixed shapes, zero before the first token."""

    arrays: tuple[tuple[int, ...], ...]

    def n_bytes(self, tokens: int, kv_types: KVTypes) -> int:
        """Bytes, the same for any number of tokens."""
        return 4 * sum(math.prod(shape) for shape in self.arrays)


StateShape = AttentionShape | RecurrentShape
State = tuple[Array, ...]
"""A recurrent layer's arrays."""


def state_bytes(shapes: Sequence[StateShape], tokens: int, kv_types: KVTypes) -> int:
    """Bytes that all layers keep of so many tokens."""
    return sum(shape.n_bytes(tokens, kv_types) for shape in shapes)


class Caches:
    """Makes the caches of one model, of ``capacity`` positions each, and knows what they take."""

    def __init__(
        self,
        backend: Backend,
        shapes: Sequence[StateShape],
        *,
        capacity: int,
        kv_types: KVTypes,
    ) -> None:
        """Raises UnsupportedModelError: rows cannot be stored as these types."""
        self.backend, self.shapes, self.capacity = backend, tuple(shapes), capacity
        attend = [shape if isinstance(shape, AttentionShape) else None for shape in shapes]
        self.stores = backend.kv_stores(attend, kv_types, capacity)
        self._recurrent = [shape for shape in shapes if isinstance(shape, RecurrentShape)]
        self._live: WeakSet[Cache] = WeakSet()

    @property
    def n_bytes(self) -> int:
        """Bytes of all caches that there are; what they share counts once."""
        recurrent = sum(shape.n_bytes(0, ("f16", "f16")) for shape in self._recurrent)
        return self.stores.n_bytes + len(self._live) * recurrent

    @property
    def can_rewind(self) -> bool:
        """Whether a cache can be taken back to any length; to 0 it always can."""
        return not self._recurrent

    def new(self) -> "Cache":
        """Make an empty one."""
        return self.add(Cache(self))

    def add(self, cache: "Cache") -> "Cache":
        """Count a cache."""
        self._live.add(cache)
        return cache


class Cache:
    """The states of all layers for one sequence; made by ``Caches``."""

    def __init__(self, caches: Caches, of: "Cache | None" = None, length: int = 0) -> None:
        """Start empty, or with the first positions of another."""
        self.length = length
        self.caches = caches
        self.store: KVStore = caches.stores.new() if of is None else of.store.fork(length)
        self._states = [self._state(index, of) for index in range(len(caches.shapes))]

    def state(self, layer: int) -> State:
        """The arrays of a recurrent layer."""
        return self._states[layer]

    @property
    def capacity(self) -> int:
        """Positions that it can hold."""
        return self.caches.capacity

    @property
    def can_rewind(self) -> bool:
        """Whether ``truncate`` can go back to any length."""
        return self.caches.can_rewind

    def reserve(self, tokens: int) -> None:
        """Make room for ``tokens`` more positions.

        Raises:
            ContextLengthError: they do not fit in ``capacity``.
        """
        needed = self.length + tokens
        if needed > self.capacity:
            raise ContextLengthError(
                f"{self.length} tokens in the context and {tokens} more make {needed}, but it "
                f"holds {self.capacity}; shorten the input or ask for a larger context"
            )
        self.store.reserve(needed, self.length)

    def fork(self, length: int) -> "Cache":
        """Make a cache that holds the first positions of this one too.

        Raises:
            ValueError: as ``truncate``.
        """
        self._check(length)
        return self.caches.add(Cache(self.caches, self if length else None, length))

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on.

        Raises:
            ValueError: more than there are, or a recurrent state that cannot be taken back.
        """
        self._check(length)
        if length == 0:
            self._states = [self._state(index, None) for index in range(len(self._states))]
        self.store.truncate(length)
        self.length = length

    def _check(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} cached positions to {length}")
        if length not in (0, self.length) and not self.can_rewind:
            raise ValueError(
                f"cannot truncate {self.length} cached positions to {length}: a recurrent layer's "
                "state cannot be taken back; truncate to 0 and run the tokens again"
            )

    def _state(self, layer: int, of: "Cache | None") -> State:
        shape = self.caches.shapes[layer]
        if not isinstance(shape, RecurrentShape):
            return ()
        if of is None:
            return tuple(self.caches.backend.zeros(array) for array in shape.arrays)
        return tuple(self.caches.backend.copy(array) for array in of.state(layer))
