"""Budgets: what ``2000M`` and ``25%`` mean, and how layers share an amount.

Knows amounts of memory alone. M and G are binary, as in llama.cpp.
"""

import re
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moestream.errors import BudgetError

LayerBudget = Literal["global", "uniform", "shallow", "adaptive"]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(%|[KMGT]?)(?:I?B)?", re.ASCII)
_SHALLOW_SHARE = 0.25
"""Most of a budget that the wholly resident first layers may take together."""


def parse_budget(text: str, total_bytes: int) -> int:
    """Return the bytes of ``640M``, ``1.5G``, ``25%`` (of ``total_bytes``) or a number of bytes.

    Raises:
        BudgetError: it is none of these, or less than one byte.
    """
    match = _AMOUNT.fullmatch(text.strip().upper())
    if match is None or (match[2] == "%" and match[0][-1] != "%"):
        raise BudgetError(f"{text!r} is no budget; expected 640M, 1.5G or 25%")
    unit = total_bytes / 100 if match[2] == "%" else _UNITS[match[2]]
    n_bytes = int(float(match[1]) * unit)
    if n_bytes < 1:
        raise BudgetError(f"a budget of {text} holds nothing; expected something like 640M or 25%")
    return n_bytes


def split_budget(
    kind: LayerBudget, budget_bytes: int, layer_bytes: Mapping[int, int]
) -> dict[int, int]:
    """Share a budget among layers, given the bytes of all experts of each.

    ``uniform`` gives each the same, and ``adaptive`` begins so. ``shallow`` holds the first layers
    wholly, as many as fit into a quarter of the budget, and gives the rest the same each:
    prediction is poorest there. No layer gets more than it has.

    Source: Fate, arXiv 2502.12224, whose cache favours the shallow layers; the quarter is ours.
    """
    shares: dict[int, int] = {}
    layers = sorted(layer_bytes)
    left = budget_bytes
    if kind == "shallow":
        for layer in layers:
            if budget_bytes - left + layer_bytes[layer] > _SHALLOW_SHARE * budget_bytes:
                break
            shares[layer] = layer_bytes[layer]
            left -= layer_bytes[layer]
    deep = sorted(layers[len(shares) :], key=lambda layer: layer_bytes[layer])
    while deep and layer_bytes[deep[0]] < left // len(
        deep
    ):  # the others get what it has no use for
        shares[deep[0]] = layer_bytes[deep[0]]
        left -= layer_bytes[deep.pop(0)]
    return shares | {layer: left // len(deep) for layer in deep}


def balance_layers(
    gains: NDArray[np.float64],
    sizes: NDArray[np.int64],
    counts: NDArray[np.int64],
    budget_bytes: int,
    *,
    least: int = 0,
) -> NDArray[np.int64]:
    """Move room for experts from the layer that loses least to the one that gains most.

    Ends where no move adds to the hits. ``gains`` (L, N) are the hits that room for one more
    expert adds to a layer that has room for n, and fall with n; ``sizes`` (L,) are bytes of one
    expert. ``counts`` (L,) are experts that there is room for, before and, returned, after; a layer
    keeps room for ``least``. With experts of one size the result is the best there is.

    Source: MoEpic, arXiv 2509.08342, the outer iteration of its configurator.
    """
    counts = counts.copy()
    rows, (_, most) = np.arange(len(counts)), gains.shape
    worth = np.pad(gains / sizes[:, None], ((0, 0), (1, 1)))  # [:, n]: of the n-th expert, a byte
    left = budget_bytes - int(counts @ sizes)
    while True:
        rise = np.where(counts < most, worth[rows, np.minimum(counts + 1, most)], -np.inf)
        winner = int(rise.argmax())
        if rise[winner] <= 0:
            return counts
        fall = np.where(counts > least, worth[rows, counts], np.inf)
        fall[winner] = np.inf
        after, room, lost = counts.copy(), left, 0.0
        while room < sizes[winner]:
            loser = int(fall.argmin())
            if fall[loser] == np.inf:
                return counts
            lost += fall[loser] * sizes[loser]
            room += int(sizes[loser])
            after[loser] -= 1
            fall[loser] = worth[loser, after[loser]] if after[loser] > least else np.inf
        if lost >= rise[winner] * sizes[winner]:
            return counts
        after[winner] += 1
        counts, left = after, room - int(sizes[winner])
