"""Budgets: what ``2000M`` and ``25%`` mean, and how layers share an amount.

Knows amounts of memory alone. M and G are binary, as in llama.cpp.
"""

import re
from collections.abc import Mapping
from typing import Literal

from moestream.errors import BudgetError

LayerBudget = Literal["global", "uniform", "shallow"]

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

    ``uniform`` gives each the same. ``shallow`` holds the first layers wholly, as many as fit into
    a quarter of the budget, and gives the rest the same each: prediction is poorest there.

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
    deep = layers[len(shares) :]
    return shares | {layer: left // len(deep) for layer in deep}
