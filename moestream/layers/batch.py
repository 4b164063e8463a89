"""The rows of one pass through the layers: one sequence's, or several's, one behind the other.

Owns which rows are whose and where they stand. All but the mixers treats every row alike.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends import BLOCK_POSITIONS, Array, Backend, KVPass, Seen
from moestream.layers.cache import Cache, State
from moestream.layers.moe import RouteObserver
from moestream.layers.per_layer import Given
from moestream.layers.rope import Rope
from moestream.layers.row_table import Wanted

CHUNK_TOKENS = 512
"""Of a prompt at once: long enough to use an expert's weights many times."""
_FAR_APART = 8
"""Blocks between two copies of a state in a pass of several chunks, as all lie in memory until it
ends; in its last chunk, and in other passes, one."""


@dataclass(frozen=True, slots=True)
class Part:
    """One sequence's rows: its cache, the position of the first, and which they are."""

    cache: Cache
    start: int
    rows: slice


class Batch:
    """The sequences of a pass, each with how many tokens it runs, all of them new to its cache."""

    def __init__(
        self,
        backend: Backend,
        parts: Sequence[tuple[Cache, int]],
        *,
        on_route: RouteObserver | None = None,
        after: int = 0,
        more: bool = False,
        mark: int = 0,
    ) -> None:
        """Make room in the caches.

        Args:
            backend: whose arrays the rows are.
            parts: the sequences.
            on_route: told what each router decides.
            after: tokens of the same pass that come before these, in a pass of one sequence.
            more: whether others of it come after them.
            mark: a length that its one sequence may want to come back to; 0 is none.

        Raises:
            ContextLengthError: tokens do not fit.
        """
        self._backend = backend
        self.on_route, self.more, self.after = on_route, more, after
        self.wanted = True
        """Whether anybody asks for what becomes of the rows, besides what the caches keep."""
        self.mark = mark
        self.stop: Callable[[], bool] | None = None
        """Asked by a layer that waits for other machines whether it still shall."""
        self._apart = BLOCK_POSITIONS * (_FAR_APART if more else 1)
        self.parts: list[Part] = []
        row = 0
        for cache, tokens in parts:
            cache.reserve(after + tokens)
            self.parts.append(Part(cache, cache.length + after, slice(row, row + tokens)))
            row += tokens
        self.rows = row
        self.kv: KVPass = backend.kv_pass(
            [(p.cache.store, p.start, p.rows.stop - p.rows.start) for p in self.parts]
        )
        self._copies: list[dict[int, dict[int, State]]] = [{} for _ in self.parts]
        """Of each part's recurrent states, by length and layer."""
        self.chosen: Seen | None = None
        """Positions that the last layer with an indexer chose; None is all."""
        self.tokens: NDArray[np.int32] = np.empty(0, np.int32)
        """Ids of the rows, where a layer goes by them."""
        self.given: Given | None = None
        """What each layer is given for them besides."""
        self.lent: dict[int, tuple[Array, Array | None]] = {}
        """Keys and values of layers that later ones attend to."""
        self.looked_up: Wanted | None = None
        """What a model began to read for them, of a table."""
        self._angles: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def angles(self, rope: Rope) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and sines of each row's position: (T, D/2) each; all layers ask for the same."""
        made = self._angles.get(id(rope))
        if made is None:
            made = self._angles[id(rope)] = rope(self.positions())
        return made

    def positions(self) -> NDArray[np.int64]:
        """Each row's place in its sequence: (T,)."""
        starts = [np.arange(p.start, p.start + p.rows.stop - p.rows.start) for p in self.parts]
        return np.concatenate(starts)

    def each(self, layer: int, run: Callable[..., Array], *inputs: Array) -> Array:
        """Run something recurrent on each sequence's rows and state of a layer: (T, ...).

        ``run`` takes a ``State`` and the rows of each input, and brings the state up to their end.
        A copy of the state is kept at the ends of blocks.
        """
        outs = []
        for part, copies in zip(self.parts, self._copies, strict=True):
            for rows, length in self._until_blocks_end(part):
                state = part.cache.state(layer)
                whole = rows.stop - rows.start == self.rows
                outs.append(run(state, *(inputs if whole else [x[rows] for x in inputs])))
                if length % self._apart == 0 or length == self.mark:
                    copies.setdefault(length, {})[layer] = part.cache.caches.copied(state)
        return self._backend.stack_rows(outs)

    def commit(self) -> None:
        """The pass has run to its end: the caches hold its tokens."""
        for part, copies in zip(self.parts, self._copies, strict=True):
            if self.mark % BLOCK_POSITIONS and (marked := copies.pop(self.mark, None)):
                part.cache.mark(self.mark, marked)
            part.cache.commit(part.rows.stop - part.rows.start, copies)

    def _until_blocks_end(self, part: Part) -> Iterator[tuple[slice, int]]:
        """A part's rows, cut at ends of blocks and the mark, and the sequence's lengths then."""
        row, length, last = part.rows.start, part.start, part.rows.stop
        while row < last:
            rows = min(self._apart - length % self._apart, last - row)
            if length < self.mark:
                rows = min(rows, self.mark - length)
            length += rows
            yield slice(row, row + rows), length
            row += rows


def cut(
    backend: Backend,
    parts: Sequence[tuple[Cache, int]],
    chunk_tokens: int,
    on_route: RouteObserver | None,
    mark: int = 0,
) -> list[Batch]:
    """The batches of one pass: one, or where it is of one sequence, a chunk of its tokens each."""
    if len(parts) > 1:
        return [Batch(backend, parts, on_route=on_route)]
    ((cache, tokens),) = parts
    return [
        Batch(
            backend,
            [(cache, min(chunk_tokens, tokens - after))],
            on_route=on_route,
            after=after,
            more=after + chunk_tokens < tokens,
            mark=mark,
        )
        for after in range(0, tokens, chunk_tokens)
    ]
