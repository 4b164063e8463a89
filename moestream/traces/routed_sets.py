"""The unit of account: a layer's routed set, looked up together.

Owns how the rows of a trace become sets. In decode a set is what one layer chose for one token; in
prefill, where a layer runs once for many tokens, it is the union of what it chose for all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from moestream.traces.format import DECODE, Trace

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class RoutedSets:
    """S routed sets in the order of the run, N keys in all.

    ``keys`` (N,) are ``layer * num_experts + expert``, distinct within a set and ordered by last
    use; set i is ``keys[starts[i] : starts[i + 1]]``. ``layers`` and ``decode`` are (S,), and so is
    ``tokens``, the forward pass that a set belongs to, counted from 0; ``turns`` and ``steps`` are
    the trace's own numbers of its first row.
    """

    keys: NDArray[np.int32]
    starts: NDArray[np.int64]
    layers: NDArray[np.int32]
    decode: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    turns: NDArray[np.int32]
    steps: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many experts each set has, (S,)."""
        return np.diff(self.starts)

    def chunks(self) -> Iterator[list[tuple[list[int], int]]]:
        """Yield the sets with their tokens, as Python numbers, many at a time."""
        for first in range(0, len(self), _CHUNK):
            bounds = self.starts[first : first + _CHUNK + 1].tolist()
            keys = self.keys[bounds[0] : bounds[-1]].tolist()
            base = bounds[0]
            sets = [keys[a - base : b - base] for a, b in pairwise(bounds)]
            yield list(zip(sets, self.tokens[first : first + _CHUNK].tolist(), strict=True))


def routed_sets(trace: Trace) -> RoutedSets:
    """Group the rows of a trace: one set a layer and pass."""
    rows = trace.rows
    turn, layer = rows["turn"], rows["layer"]
    decode = rows["phase"] == DECODE
    new_pass, new_set = boundaries(rows)
    keys = layer.astype(np.int32) * np.int32(trace.header.num_experts) + rows["expert"]
    starts = np.append(np.flatnonzero(new_set), len(rows))
    keys, starts = _distinct(keys, starts)
    return RoutedSets(
        keys=keys,
        starts=starts,
        layers=np.ascontiguousarray(layer[new_set]),
        decode=decode[new_set],
        tokens=np.cumsum(new_pass)[new_set] - 1,
        turns=turn[new_set],
        steps=rows["step"][new_set],
    )


def boundaries(rows: NDArray[np.void]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows of a trace begin a pass, and which a set; both (N,)."""
    turn, layer = rows["turn"], rows["layer"]
    decode = rows["phase"] == DECODE
    new_pass = _changes(turn) | _changes(decode) | (decode & _changes(rows["step"]))
    new_pass[1:] |= layer[1:] < layer[:-1]
    return new_pass, new_pass | _changes(layer)


def _changes(column: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where a column differs from the row before; the first row does."""
    changed = np.ones(len(column), np.bool_)
    np.not_equal(column[1:], column[:-1], out=changed[1:])
    return changed


def _distinct(
    keys: NDArray[np.int32], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Keep the last of equal keys of a set, in place."""
    n_keys = int(keys.max()) + 1
    sets = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    marks = sets * n_keys + keys
    if len(marks) < 2 or np.diff(np.sort(marks)).all():
        return keys, starts
    _, last = np.unique(marks[::-1], return_index=True)
    kept = np.sort(len(marks) - 1 - last)
    return keys[kept], np.searchsorted(kept, starts)
