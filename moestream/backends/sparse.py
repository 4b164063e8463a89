"""Which positions a query attends to, where a learned indexer chooses some.

The formula, in NumPy but for products, for all backends: choices are few numbers beside what is
attended to, and a choice must not depend on how rows are cut into chunks, so each query is scored
by itself.

Source: DeepSeek-V3.2-Exp (DeepSeek-AI, 2025); llama.cpp, src/models/deepseek32.cpp.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moestream.backends.kv_blocks import BlockStore, last_of_rows, put_rows
from moestream.backends.maths import NUMPY, Floats, Maths
from moestream.backends.sparse_blocks import choose_blocks, choose_by_head, weighed
from moestream.backends.types import IndexQueries

Chosen = NDArray[np.uint8] | None
"""Which positions each row of a pass sees, (T, 1 or K, most S), by key/value head where they
differ; None for all."""


def choose_positions(
    queries: Floats,
    weights: Floats,
    keys: Floats,
    start: int,
    most: int,
    maths: Maths = NUMPY,
) -> NDArray[np.bool_]:
    """The ``most`` positions with the largest scores of those that each query sees: (T, S).

    A score is the weighted sum of the heads' products (T, HI, D) with the keys (S, D), of which
    those below zero count as zero. Among equals, the earlier position is first.
    """
    seen = np.zeros((len(queries), len(keys)), np.bool_)
    for row, (query, weight) in enumerate(zip(queries, weights, strict=True)):
        visible = start + row + 1
        if visible <= most:
            seen[row, :visible] = True
            continue
        scores = weighed(query, weight, keys[:visible], maths)
        order = np.argsort(-scores, kind="stable")
        seen[row, order[:most]] = True
    return seen


def choose(
    index: IndexQueries, keys: Floats, start: int, maths: Maths = NUMPY
) -> NDArray[np.bool_]:
    """What queries of one sequence, the first at ``start``, see of its keys: (T, choices, S)."""
    asked = index.queries, index.weights, keys, start, index.most
    if index.by_head is not None:
        return choose_by_head(index.queries, keys, start, index.most, index.by_head, maths)
    if index.blocks is not None:
        seen = choose_blocks(*asked, index.blocks, maths)
    else:
        seen = choose_positions(*asked, maths)
    return seen.reshape(len(seen), 1, -1)


def choose_in_blocks(
    index: IndexQueries,
    k: Floats,
    parts: Sequence[tuple[BlockStore, int, int]],
    layer: int,
    maths: Maths = NUMPY,
) -> Chosen:
    """Write keys, whose last numbers are the index's, and choose."""
    longest = max(start + tokens for _, start, tokens in parts)
    if longest <= index.enough:
        return None
    if len(parts) == 1:  # with no copy of what may be large
        return _choose_of(index, k, parts[0], layer, maths).view(np.uint8)
    seen, row = np.zeros((len(k), index.choices, longest), np.uint8), 0
    for part in parts:
        _, start, tokens = part
        rows = slice(row, row + tokens)
        asked = replace(index, queries=index.queries[rows], weights=index.weights[rows])
        seen[rows, :, : start + tokens] = _choose_of(asked, k[rows], part, layer, maths)
        row += tokens
    return seen


def _choose_of(
    index: IndexQueries, k: Floats, part: tuple[BlockStore, int, int], layer: int, maths: Maths
) -> NDArray[np.bool_]:
    """The same of one sequence: (T, choices, S)."""
    store, start, tokens = part
    place = store.stores.layers[layer]
    assert place is not None, "a layer that attends"
    keys, _ = place
    put_rows(store, keys, k, start)
    past = last_of_rows(store, keys, start + tokens, index.kept)
    return choose(index, past, start, maths)
