"""What a model remembers of the tokens seen so far: a state a layer.

Owns how long a cache is and what it may hold; the memory of keys and values is the backend's.
Knows nothing of tokens: ``Session`` keeps those.

An attention layer remembers keys and values of every position, and can forget the last ones. A
recurrent layer has one state for all that came before, which cannot be taken back but to where a
copy of it was kept.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakSet

from moestream.backends import BLOCK_POSITIONS, Array, AttentionShape, Backend, KVStore, KVTypes
from moestream.errors import ContextLengthError


@dataclass(frozen=True, slots=True)
class RecurrentShape:
    """Float32 arrays of fixed shapes, zero before the first token; none of a layer that forgets."""

    arrays: tuple[tuple[int, ...], ...]

    def n_bytes(self, tokens: int, kv_types: KVTypes) -> int:
        """Bytes, the same for any number of tokens."""
        return 4 * sum(math.prod(shape) for shape in self.arrays)


@dataclass(frozen=True, slots=True)
class CompressedShape(AttentionShape):
    """Rows of positions, and the arrays of what was not made rows of yet."""

    arrays: tuple[tuple[int, ...], ...] = ()

    def n_bytes(self, tokens: int, kv_types: KVTypes) -> int:
        """Bytes of both."""
        kept = RecurrentShape(self.arrays).n_bytes(tokens, kv_types)
        return kept + AttentionShape.n_bytes(self, tokens, kv_types)


FORGETS = RecurrentShape(())
"""Of a layer that keeps nothing."""
_NEWEST = 4
"""Snapshots that are kept whatever they are of."""

StateShape = AttentionShape | RecurrentShape
State = tuple[Array, ...]
"""A recurrent layer's arrays."""


def state_bytes(shapes: Sequence[StateShape], tokens: int, kv_types: KVTypes) -> int:
    """Bytes that all layers keep of so many tokens."""
    return sum(shape.n_bytes(tokens, kv_types) for shape in shapes)


class Snapshot:
    """A copy of the states of recurrent layers at one length: nothing writes to it any more."""

    __slots__ = ("__weakref__", "states")

    def __init__(self, states: dict[int, State]) -> None:
        self.states = states
        """By layer."""


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
        self.kv_types = kv_types
        attend = [shape if isinstance(shape, AttentionShape) else None for shape in shapes]
        self.stores = backend.kv_stores(attend, kv_types, capacity)
        self.recurrent = {
            layer: shape
            for layer, shape in enumerate(shapes)
            if isinstance(shape, RecurrentShape | CompressedShape) and shape.arrays
        }
        """Shapes of the layers that cannot be taken back but to a snapshot."""
        self._live: WeakSet[Cache | Snapshot] = WeakSet()

    @property
    def n_bytes(self) -> int:
        """Bytes of all caches that there are; what they share counts once."""
        return self.stores.n_bytes + len(self._live) * self.recurrent_bytes

    @property
    def recurrent_bytes(self) -> int:
        """Bytes of the states of recurrent layers, once."""
        return state_bytes(list(self.recurrent.values()), 0, ("f16", "f16"))

    def new(self) -> "Cache":
        """Make an empty one."""
        return self.add(Cache(self))

    def add(self, cache: "Cache") -> "Cache":
        """Count a cache."""
        self._live.add(cache)
        return cache

    def copied(self, state: State) -> State:
        """A state in memory of its own."""
        return tuple(map(self.backend.copy, state))

    def snapshot(self, states: dict[int, State]) -> Snapshot:
        """Make a snapshot of states that are nobody else's."""
        made = Snapshot(states)
        self._live.add(made)
        return made


class Cache:
    """The states of all layers for one sequence; made by ``Caches``.

    Keys and values can be taken back to any length. Recurrent states can to the lengths at which
    snapshots were kept: the last few ends of blocks and of prompts, and ever fewer before them.
    """

    def __init__(self, caches: Caches, of: "Cache | None" = None, length: int = 0) -> None:
        """Start empty, or with the first positions of another."""
        self.length = length
        self.caches = caches
        self.store: KVStore = caches.stores.new() if of is None else of.store.fork(length)
        self.snapshots: dict[int, Snapshot] = {}
        if of is not None:
            self.snapshots = {n: kept for n, kept in of.snapshots.items() if n <= length}
        self._states = self._states_at(length, of)

    def state(self, layer: int) -> State:
        """The arrays of a recurrent layer."""
        return self._states[layer]

    @property
    def capacity(self) -> int:
        """Positions that it can hold."""
        return self.caches.capacity

    @property
    def can_rewind(self) -> bool:
        """Whether it can go back to any length."""
        return not self.caches.recurrent

    def nearest(self, length: int, *, torn: bool = False) -> int:
        """The most positions, up to ``length``, that it can go back to.

        ``torn``: a pass broke off in the middle, so that recurrent states are of no length.
        """
        length = min(length, self.length)
        if self.can_rewind or (length == self.length and not torn):
            return length
        return max((n for n in self.snapshots if n <= length), default=0)

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
        return self.caches.add(type(self)(self.caches, self if length else None, length))

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on.

        Raises:
            ValueError: more than there are, or a length that is not ``nearest``.
        """
        self._check(length)
        if length != self.length or length in self.snapshots or not length:
            self._states = self._states_at(length, self if length else None)
        self.snapshots = {n: kept for n, kept in self.snapshots.items() if n <= length}
        self.store.truncate(length)
        self.length = length

    def trim(self) -> None:
        """Let go of room that was reserved and is not used."""
        self.store.truncate(self.length)

    def adopt(self, other: "Cache") -> None:
        """Take over the recurrent states of another, which is of no more use."""
        self._states = other._states

    def keep_state(self) -> None:
        """Keep a snapshot of now, where there is anything that cannot be taken back."""
        if not self.can_rewind and self.length and self.length not in self.snapshots:
            states = {layer: self.caches.copied(state) for layer, state in self._states.items()}
            self.keep({self.length: states})

    def mark(self, length: int, states: dict[int, State]) -> None:
        """Keep a snapshot until ``unmark``, beside those that ``keep`` chooses from."""
        self.snapshots[length] = self.caches.snapshot(states)

    def unmark(self, length: int) -> None:
        """It need not come back there any more."""
        self.snapshots.pop(length, None)

    def commit(self, tokens: int, states: Mapping[int, dict[int, State]]) -> None:
        """A pass of so many tokens has run to its end; keep some of these states."""
        self.length += tokens
        self.keep(states)

    def keep(self, states: Mapping[int, dict[int, State]]) -> None:
        """Keep states by length and layer as snapshots; let go of some that are close to others."""
        if not states:
            return
        self.snapshots |= {n: self.caches.snapshot(copy) for n, copy in states.items()}
        newest = sorted(self.snapshots)[-_NEWEST:]
        kept = (n for n in self.snapshots if n in newest or _lasts(n, self.length))
        self.snapshots = {n: self.snapshots[n] for n in kept}

    def _check(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} cached positions to {length}")
        if length and self.nearest(length) != length:
            raise ValueError(
                f"cannot truncate {self.length} cached positions to {length}: a recurrent layer's "
                f"state cannot be taken back; truncate to {self.nearest(length)} and run the "
                "tokens again"
            )

    def _states_at(self, length: int, of: "Cache | None") -> dict[int, State]:
        """States of the layers at a length of a cache, in memory of their own."""
        if of is None:
            zeros = self.caches.backend.zeros
            return {
                layer: tuple(map(zeros, shape.arrays))
                for layer, shape in self.caches.recurrent.items()
            }
        kept = of.snapshots.get(length)
        states = of._states if kept is None else kept.states
        return {layer: self.caches.copied(state) for layer, state in states.items()}


def _lasts(n: int, length: int) -> bool:
    """Whether a copy is kept at ``n`` of so many positions: as far apart as they are back."""
    block, within = divmod(n, BLOCK_POSITIONS)
    back = (length - n) // BLOCK_POSITIONS
    return not within and not block % (1 << max(back.bit_length() - 1, 0))
