"""MoEpic's configurator: how many experts each layer keeps, and how much of each.

Pure functions of how often experts are used, how big they are, and how fast they are read. The
inner one finds, for one layer's budget, the share of an expert to keep with which the layer waits
least; the outer iteration moves budget from the layer that loses least to the one that gains most
until no move helps.

Source: MoEpic, arXiv 2509.08342. Its expected time of a layer is here the time that reads make it
wait: what it computes is the same whatever is kept. Taking the uses of the n most used experts for
hits of n kept ones, independent of one another, is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from moestream.choices import LayerBudget
from moestream.policies.shares import balance_layers, split_budget

SPLITS = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25)
"""Shares of an expert that may be what is kept of it; of equally good ones the first is taken."""

_TYPICAL = ((0, 0.05, 0.1, 0.25, 0.5, 0.75, 1), (0, 0.32, 0.48, 0.78, 0.95, 0.99, 1))
"""Share of all uses that so much of a layer's experts gets, the most used first: about the mean of
the traces of docs/policies.md."""
_EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class ReadCost:
    """How fast experts are read, and for how long unnoticed: while a layer computes otherwise."""

    bytes_per_s: float
    hidden_s: float = 0.0

    def stall_s(self, n_bytes: NDArray[np.int64]) -> float:
        """Time that sets wait for so many bytes each, (S,), in all."""
        return float(self.waits_s(n_bytes).sum())

    def waits_s(self, n_bytes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Time that each set waits for so many bytes."""
        return np.maximum(n_bytes / self.bytes_per_s - self.hidden_s, 0.0)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a layer keeps: the first ``share`` of each of ``count`` experts, and what it waits."""

    count: int
    share: float
    wait_s: float


def typical_uses(num_experts: int) -> NDArray[np.float64]:
    """Uses of a layer's experts, the most used first, where nothing is known of the workload."""
    reached = np.interp(np.arange(num_experts + 1) / num_experts, *_TYPICAL)
    return np.diff(reached)


def best_kept(
    uses: NDArray[np.float64], room_bytes: int, expert_bytes: int, k: int, disk: ReadCost
) -> Kept:
    """What to keep of a layer's experts within ``room_bytes``.

    ``uses`` (N,) are of its experts, in any unit and order; a token asks for ``k`` of them.
    """
    rooms = np.array([room_bytes], np.int64)
    waits = _waits_s(uses, rooms, expert_bytes, k, disk)[:, 0]
    place = _first_least(waits[:, None])[0]
    count = _counts(rooms, expert_bytes, len(uses))[place, 0]
    return Kept(int(count), SPLITS[place], float(waits[place]))


def configure(
    uses: NDArray[np.float64], sizes: NDArray[np.int64], budget_bytes: int, k: int, disk: ReadCost
) -> list[Kept]:
    """What each layer keeps within one budget: the outer iteration, begun with equal shares.

    ``uses`` (L, N) are of each layer's experts; ``sizes`` (L,) are bytes of one. Budget moves by
    what one expert takes.
    """
    num_experts = uses.shape[1]
    steps = np.arange(num_experts + 1, dtype=np.int64)
    waits = np.array(
        [
            _waits_s(row, steps * size, int(size), k, disk).min(axis=0)
            for row, size in zip(uses, sizes, strict=True)
        ]
    )  # (L, N + 1)
    start = np.minimum(budget_bytes // len(sizes) // sizes, num_experts)
    rooms = balance_layers(waits[:, :-1] - waits[:, 1:], sizes, start, budget_bytes)
    return [
        best_kept(row, int(room * size), int(size), k, disk)
        for row, room, size in zip(uses, rooms, sizes, strict=True)
    ]


def configure_layers(
    kind: LayerBudget,
    uses: Mapping[int, NDArray[np.float64]],
    expert_bytes: Mapping[int, int],
    budget_bytes: int,
    k: int,
    disk: ReadCost,
) -> dict[int, Kept]:
    """What each layer keeps, by layer, under each kind of layer budget.

    ``adaptive`` is ``configure``; with ``uniform`` and ``shallow`` each layer's budget is given,
    and with ``global``, where all layers share one cache, one share is best for all of them.
    """
    layers = list(uses)
    sizes = np.array([expert_bytes[layer] for layer in layers], np.int64)
    if kind == "adaptive":
        found = configure(np.array([uses[n] for n in layers]), sizes, budget_bytes, k, disk)
        return dict(zip(layers, found, strict=True))
    if kind == "global":
        every = np.concatenate([uses[layer] for layer in layers])
        return dict.fromkeys(layers, best_kept(every, budget_bytes, int(sizes.mean()), k, disk))
    whole = {layer: len(uses[layer]) * expert_bytes[layer] for layer in layers}
    rooms = split_budget(kind, budget_bytes, whole)
    return {n: best_kept(uses[n], rooms[n], expert_bytes[n], k, disk) for n in layers}


def _counts(rooms: NDArray[np.int64], expert_bytes: int, num_experts: int) -> NDArray[np.int64]:
    """Experts kept by share and room: (splits, R)."""
    parts = np.array([max(int(expert_bytes * share), 1) for share in SPLITS], np.int64)
    counts: NDArray[np.int64] = np.minimum(rooms // parts[:, None], num_experts)
    return counts


def _waits_s(
    uses: NDArray[np.float64], rooms: NDArray[np.int64], expert_bytes: int, k: int, disk: ReadCost
) -> NDArray[np.float64]:
    """What a layer is expected to wait for a token, by share and room: (splits, R)."""
    falling = -np.sort(-uses)
    reached = np.concatenate([[0.0], np.cumsum(falling)]) / max(float(falling.sum()), 1e-300)
    chance = reached[_counts(rooms, expert_bytes, len(uses))]
    waits = np.zeros(chance.shape)
    for hits in range(k + 1):
        probability = comb(k, hits) * chance**hits * (1 - chance) ** (k - hits)
        read = [k * expert_bytes - hits * int(expert_bytes * share) for share in SPLITS]
        waits += probability * disk.waits_s(np.array(read, np.int64))[:, None]
    return waits


def _first_least(waits: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first share that waits least but for rounding, by room: (R,)."""
    least = waits.min(axis=0)
    found: NDArray[np.int64] = (waits <= least * (1 + _EQUAL) + 1e-15).argmax(axis=0)
    return found
