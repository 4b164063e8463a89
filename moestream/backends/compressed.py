"""Attention of one key/value head to a window, and to rows that stand for stretches before it.

A position's row is its key and its value. Behind it lie, where a stretch of positions ends, the row
that stands for the stretch, and the key that an index knows it by. The formula, in NumPy
but for products and exponentials, for all backends: a query sees few rows, and is computed by
itself, so that nothing depends on how rows are cut into chunks.

Source: llama.cpp, src/models/deepseek4.cpp.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from moestream.backends.kv_blocks import BlockStore, put_rows, rows_between
from moestream.backends.maths import NUMPY, Floats, Maths
from moestream.backends.sparse_blocks import weighed
from moestream.backends.types import AttentionRule, IndexQueries

ReadRows = Callable[[int, int, int], Floats]
"""Rows from a position to before another, each so many-th: (n, D)."""


@dataclass(frozen=True, slots=True)
class Stretches:
    """Stretches of ``size`` positions; a row has ``dim`` numbers.

    With ``overlap``, a stretch's row is also of the stretch before: positions give numbers for
    either, ``dim`` for the next stretch and as many for their own.
    """

    size: int
    dim: int
    overlap: bool = False

    @property
    def reach(self) -> int:
        """Positions back that a row is made of, its last one's own included."""
        return self.size * (1 + self.overlap)


def pool(
    values: Floats,
    scores: Floats,
    past: Sequence[Floats],
    places: Floats,
    start: int,
    rule: Stretches,
    maths: Maths = NUMPY,
) -> Floats:
    """Rows of the stretches that end in a chunk from ``start`` on; zeros elsewhere: (T, dim).

    A row is the sum of its positions' ``values`` (T, D), each number by the softmax of ``scores``,
    to which ``places`` (size, D) are added by their place in the stretch. ``past`` (reach, D) has
    both of the positions before, and is brought up to the chunk's end.
    """
    scores = scores + places[(start + np.arange(len(scores))) % rule.size]
    seen = [
        np.concatenate([before, new]) for before, new in zip(past, (values, scores), strict=True)
    ]
    for before, both in zip(past, seen, strict=True):
        before[:] = both[len(values) :]
    out = np.zeros((len(values), rule.dim), np.float32)
    for row in range(-(start + 1) % rule.size, len(values), rule.size):
        stop = rule.reach + row + 1
        value, score = (both[stop - rule.size : stop, -rule.dim :] for both in seen)
        if rule.overlap and start + row >= rule.size:
            earlier = slice(stop - rule.reach, stop - rule.size)
            value, score = (
                np.concatenate([both[earlier, : rule.dim], own])
                for both, own in zip(seen, (value, score), strict=True)
            )
        shares = maths.exponentials(score - score.max(axis=0))
        out[row] = (shares * value).sum(axis=0) / shares.sum(axis=0)
    return out


def attend_compressed(
    q: Floats,
    read: ReadRows,
    start: int,
    rule: AttentionRule,
    stretches: Stretches,
    index: IndexQueries | None,
    maths: Maths = NUMPY,
) -> Floats:
    """Queries (T, H, D) of one sequence, the first at ``start``: (T, H * D)."""
    tokens, dim = len(q), rule.value_dim
    stop, size = start + tokens, stretches.size
    first = max(0, start + 1 - rule.window)
    window = read(first, stop, 1)[:, :dim]
    ends = read(size - 1, stop, size)[:, dim:]
    rows, keys = ends[:, : stretches.dim], ends[:, stretches.dim :]
    out = np.empty((tokens, q.shape[1], dim), np.float32)
    for token in range(tokens):
        position = start + token
        near = window[max(0, position + 1 - rule.window) - first : position + 1 - first]
        count = (position + 1) // size
        far = rows[:count]
        if index is not None and count > index.most:
            scores = weighed(index.queries[token], index.weights[token], keys[:count], maths)
            order = np.argsort(-scores, kind="stable")
            far = rows[np.sort(order[: index.most])]
        out[token] = _attend(q[token], np.concatenate([near, far]), rule, maths)
    return out.reshape(tokens, -1)


def attend_in_blocks(
    q: Floats,
    rows: Floats,
    parts: Sequence[tuple[BlockStore, int, int]],
    layer: int,
    rule: AttentionRule,
    stretches: Stretches,
    index: IndexQueries | None,
    maths: Maths,
) -> Floats:
    """Write rows (T, 1, D), then attend, one sequence after the other."""
    outs, row = [], 0
    for store, start, tokens in parts:
        place = store.stores.layers[layer]
        assert place is not None, "a layer that attends"
        keys, _ = place
        here = slice(row, row + tokens)
        put_rows(store, keys, rows[here], start)
        read = partial(rows_between, store, keys)
        asked = of_rows(index, here)
        outs.append(attend_compressed(q[here], read, start, rule, stretches, asked, maths))
        row += tokens
    return np.concatenate(outs)


def of_rows(index: IndexQueries | None, rows: slice) -> IndexQueries | None:
    """What some rows ask for."""
    if index is None:
        return None
    return replace(index, queries=index.queries[rows], weights=index.weights[rows])


def _attend(q: Floats, rows: Floats, rule: AttentionRule, maths: Maths) -> Floats:
    scores = maths.products(q, rows) * np.float32(rule.scale)  # (H, S)
    if rule.sinks is not None:
        scores = np.column_stack([scores, rule.sinks])
    return maths.products(maths.softmax(scores)[:, : len(rows)], rows.T)


class Compressing(Maths):
    """Part of a ``Backend`` whose arrays are NumPy's; see there for shapes and meaning."""

    def pool_stretches(
        self,
        values: Floats,
        scores: Floats,
        past: Sequence[Floats],
        places: Floats,
        start: int,
        rule: Stretches,
    ) -> Floats:
        """See ``pool``."""
        return pool(values, scores, past, places, start, rule, self)

    def compressed_attention(
        self,
        q: Floats,
        rows: Floats,
        kv_pass: Any,
        layer: int,
        rule: AttentionRule,
        stretches: Stretches,
        index: IndexQueries | None,
    ) -> Floats:
        """See ``attend_in_blocks``; a pass of kernels' own has its sequences in ``parts``."""
        parts = getattr(kv_pass, "parts", kv_pass)
        return attend_in_blocks(q, rows, parts, layer, rule, stretches, index, self)
