"""Layers' shares of the memory for experts, in bytes and in slots.

Numbers in, numbers out: knows nothing of what is read or where it lies.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from moestream.choices import LayerBudget

_SHALLOW_SHARE = 0.25
"""Most of a budget that the wholly resident first layers may take together."""


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


def layer_slots(
    kind: LayerBudget,
    classes: Mapping[int, list[int]],
    num_experts: int,
    slots: Mapping[int, int],
    spare: int,
    weights: Mapping[int, float] | None = None,
) -> dict[int, int]:
    """How many experts each layer may keep.

    ``classes`` are the layers by the bytes of their slots, and ``slots`` how many of each size
    there is memory for, of which ``spare`` are left to what is not kept. With ``weights``
    each layer has its part of the whole, instead of what ``kind`` gives.
    """
    sizes = {layer: slot_bytes for slot_bytes, layers in classes.items() for layer in layers}
    whole = all(slots[size] >= num_experts * len(layers) for size, layers in classes.items())
    kept = {size: slots[size] - (0 if whole else min(spare, slots[size])) for size in classes}
    budget_bytes = sum(size * count for size, count in kept.items())
    whole_bytes = {layer: num_experts * size for layer, size in sizes.items()}
    if weights is None:
        shares = split_budget(kind, budget_bytes, whole_bytes)
    else:
        part = budget_bytes / (sum(weights.values()) or 1)
        shares = {n: min(int(weights[n] * part), most) for n, most in whole_bytes.items()}
    return {layer: n_bytes // sizes[layer] for layer, n_bytes in shares.items()}
