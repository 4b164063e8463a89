"""What a model remembers of the tokens seen so far: a state a layer.

Owns the buffers and how they grow; what is in them is written and read by the layers and their
backend. Knows nothing of tokens: ``Session`` keeps those.

An attention layer remembers keys and values of every position, and can forget the last ones. A
recurrent layer has one state for all that came before, which cannot be taken back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moestream.backends import Array, Backend, kv_row_bytes
from moestream.choices import KVType
from moestream.errors import ContextLengthError

KVTypes = tuple[KVType, KVType]
"""How keys and how values are stored."""

_FIRST_POSITIONS = 256
_GROWTH = 1.25
"""Times as many positions at least, once there are too few: each is copied four times at most."""


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Keys (K, S, key_dim) and values (K, S, value_dim) of a layer; S grows.

    ``value_dim`` 0: a layer whose values are a part of its keys.
    """

    heads: int
    key_dim: int
    value_dim: int

    def n_bytes(self, tokens: int, kv_types: KVTypes) -> int:
        """Bytes that so many tokens take.

        Raises:
            UnsupportedModelError: a row is not a whole number of a type's blocks.
        """
        rows = zip((self.key_dim, self.value_dim), kv_types, strict=True)
        return tokens * self.heads * sum(kv_row_bytes(dim, kind) for dim, kind in rows if dim)


@dataclass(frozen=True, slots=True)
class RecurrentShape:
    """Float32 arrays of fixed shapes, zero before the first token."""

    arrays: tuple[tuple[int, ...], ...]

    def n_bytes(self, tokens: int, kv_types: KVTypes) -> int:
        """Bytes, the same for any number of tokens."""
        return 4 * sum(math.prod(shape) for shape in self.arrays)


StateShape = AttentionShape | RecurrentShape
State = tuple[Array, ...]
"""A layer's buffers: keys and values, or a recurrent layer's arrays."""


def state_bytes(shapes: Sequence[StateShape], tokens: int, kv_types: KVTypes) -> int:
    """Bytes that all layers keep of so many tokens."""
    return sum(shape.n_bytes(tokens, kv_types) for shape in shapes)


class Cache:
    """The states of all layers; keys and values grow by a quarter, up to ``capacity`` positions.

    A long context costs memory only when it is used, and little more than it uses.
    """

    def __init__(
        self,
        backend: Backend,
        shapes: Sequence[StateShape],
        *,
        capacity: int,
        kv_types: KVTypes,
    ) -> None:
        self.length = 0
        self.capacity = capacity
        self._backend = backend
        self._shapes = tuple(shapes)
        self._kv_types = kv_types
        self._positions = min(capacity, _FIRST_POSITIONS)
        self._layers = [self._empty(shape, self._positions) for shape in self._shapes]

    def layer(self, index: int) -> State:
        """The buffers of layer ``index``, with room for what ``reserve`` asked."""
        return self._layers[index]

    @property
    def can_rewind(self) -> bool:
        """Whether ``truncate`` can go back to any length; to 0 it always can."""
        return not any(isinstance(shape, RecurrentShape) for shape in self._shapes)

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
        positions = self.positions_with(tokens)
        if positions > self._positions:
            for index, shape in enumerate(self._shapes):  # one by one: old and new need room
                if isinstance(shape, AttentionShape) and self._held(index) < positions:
                    self._layers[index] = self._grown(shape, self._layers[index], positions)
            self._positions = positions  # not before: a buffer may not be had

    def positions_with(self, tokens: int) -> int:
        """For how many positions there is memory once ``tokens`` more were reserved."""
        needed = self.length + tokens
        if needed <= self._positions:
            return self._positions
        return min(self.capacity, max(needed, int(_GROWTH * self._positions)))

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on.

        Raises:
            ValueError: more than there are, or a recurrent state that cannot be taken back.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} cached positions to {length}")
        if length not in (0, self.length) and not self.can_rewind:
            raise ValueError(
                f"cannot truncate {self.length} cached positions to {length}: a recurrent layer's "
                "state cannot be taken back; truncate to 0 and run the tokens again"
            )
        if length == 0:
            for index, shape in enumerate(self._shapes):
                if isinstance(shape, RecurrentShape):
                    self._layers[index] = self._empty(shape, self._positions)
        self.length = length

    def _held(self, index: int) -> int:
        """For how many positions a layer's buffers have room."""
        return int(self._layers[index][0].shape[1])

    def _empty(self, shape: StateShape, positions: int) -> State:
        if isinstance(shape, RecurrentShape):
            return tuple(self._backend.zeros(array) for array in shape.arrays)
        rows = zip((shape.key_dim, shape.value_dim), self._kv_types, strict=True)
        return tuple(
            self._backend.kv_buffer(shape.heads, positions, dim, kv_type)
            for dim, kv_type in rows
            if dim
        )

    def _grown(self, shape: AttentionShape, old: State, positions: int) -> State:
        new = self._empty(shape, positions)
        for into, rows in zip(new, old, strict=True):
            into[:, : self.length] = rows[:, : self.length]
        return new
