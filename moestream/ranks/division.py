"""Which layers each machine gets: numbers in, ranges out.

First, none gets more than its memory always needs; then, as little as can be is streamed; then, the
slowest part is as fast as can be, as a pipeline goes at its pace. Knows no files and no network.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from moestream.errors import RankError

_ALIKE = 1.3
"""Machines whose speeds differ by less are as fast as each other, as far as can be measured."""
_DISK = 10
"""Times as long as from memory a byte takes from disk, about."""


class LayerCost(NamedTuple):
    """What a layer takes: bytes that are always in memory, those of its experts, bytes a token."""

    resident_bytes: int
    expert_bytes: int
    token_bytes: int
    may_begin: bool = True
    """Whether a part may begin with it."""


class Machine(NamedTuple):
    """Memory for layers, and bytes that it gets through in a second."""

    memory_bytes: int
    speed: float


Cost = tuple[int, int, float]
"""Bytes that lack always, bytes that are streamed, seconds of the slowest; less is better."""


def divide(
    layers: Sequence[LayerCost], ends: LayerCost, machines: Sequence[Machine]
) -> list[range]:
    """Give each machine, in order, one layer or more; the first has the ``ends`` too.

    Raises:
        RankError: there are not so many parts to give.
    """
    parts = _Parts(layers, ends, machines)
    best: dict[int, tuple[Cost, tuple[int, ...]]] = {0: ((0, 0, 0.0), (0,))}
    for rank in range(len(machines)):
        last = rank == len(machines) - 1
        stops = [len(layers)] if last else [i for i, each in enumerate(layers) if each.may_begin]
        best = {
            stop: min(found)
            for stop in stops
            if (
                found := [
                    (_sum(cost, parts.cost(rank, start, stop)), (*cuts, stop))
                    for start, (cost, cuts) in best.items()
                    if start < stop
                ]
            )
        }
    if not best:
        raise RankError(
            f"{len(machines)} machines are too many for the {len(layers)} layers of this model, of "
            f"which {sum(each.may_begin for each in layers)} can be a machine's first; start fewer"
        )
    _, cuts = best[len(layers)]
    return [range(start, stop) for start, stop in pairwise(cuts)]


def lacking(
    part: range, layers: Sequence[LayerCost], ends: LayerCost | None, machine: Machine
) -> int:
    """Bytes by which a machine's memory is too small for what is always in it."""
    resident = sum(layers[i].resident_bytes for i in part)
    return resident + (ends.resident_bytes if ends else 0) - machine.memory_bytes


def _sum(a: Cost, b: Cost) -> Cost:
    return a[0] + b[0], a[1] + b[1], max(a[2], b[2])


class _Parts:
    """What each machine would take for each run of layers."""

    def __init__(
        self, layers: Sequence[LayerCost], ends: LayerCost, machines: Sequence[Machine]
    ) -> None:
        self._ends, self._machines = ends, machines
        self._resident = [0, *accumulate(each.resident_bytes for each in layers)]
        self._experts = [0, *accumulate(each.expert_bytes for each in layers)]
        self._token = [0, *accumulate(each.token_bytes for each in layers)]
        fastest = max(each.speed for each in machines)
        self._speeds = [
            fastest if fastest < _ALIKE * each.speed else each.speed for each in machines
        ]

    def cost(self, rank: int, start: int, stop: int) -> Cost:
        resident = self._resident[stop] - self._resident[start]
        token = self._token[stop] - self._token[start]
        if rank == 0:
            resident += self._ends.resident_bytes
        left = self._machines[rank].memory_bytes - resident
        experts = self._experts[stop] - self._experts[start]
        streamed = max(experts - max(left, 0), 0)
        slowed = 1 + _DISK * streamed / experts if streamed else 1
        work = token * slowed + (0 if rank else self._ends.token_bytes)
        return max(-left, 0), streamed, work / self._speeds[rank]
