"""The rows of one pass through the layers: one sequence's, or several's, one behind the other.

Owns which rows are whose and where they stand. All but the mixers treats every row alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, Backend, KVPass
from moestream.layers.cache import Cache
from moestream.layers.rope import Rope


@dataclass(frozen=True, slots=True)
class Part:
    """One sequence's rows: its cache, the position of the first, and which they are."""

    cache: Cache
    start: int
    rows: slice


class Batch:
    """The sequences of a pass, each with how many tokens it runs, all of them new to its cache."""

    def __init__(self, backend: Backend, parts: Sequence[tuple[Cache, int]]) -> None:
        """Make room in the caches.

        Raises:
            ContextLengthError: tokens do not fit.
        """
        self._backend = backend
        self.parts: list[Part] = []
        row = 0
        for cache, tokens in parts:
            cache.reserve(tokens)
            self.parts.append(Part(cache, cache.length, slice(row, row + tokens)))
            row += tokens
        self.rows = row
        self.kv: KVPass = backend.kv_pass(
            [(p.cache.store, p.start, p.rows.stop - p.rows.start) for p in self.parts]
        )
        self._angles: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def angles(self, rope: Rope) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and sines of each row's position: (T, D/2) each; all layers ask for the same."""
        made = self._angles.get(id(rope))
        if made is None:
            starts = [np.arange(p.start, p.start + p.rows.stop - p.rows.start) for p in self.parts]
            made = self._angles[id(rope)] = rope(np.concatenate(starts))
        return made

    def each(self, layer: int, run: Callable[..., Array], *inputs: Array) -> Array:
        """Run something recurrent on each sequence's rows and state of a layer: (T, ...).

        ``run`` takes a ``State`` and the rows of each input, and brings the state up to their end.
        """
        if len(self.parts) == 1:
            return run(self.parts[0].cache.state(layer), *inputs)
        return self._backend.stack_rows(
            [run(p.cache.state(layer), *(x[p.rows] for x in inputs)) for p in self.parts]
        )

    def commit(self) -> None:
        """The pass has run to its end: the caches hold its tokens."""
        for part in self.parts:
            part.cache.length += part.rows.stop - part.rows.start
