"""Why a run waits for the disk: the first layer, no guess, a late one, or the disk's queue.

Owns whose fault a wait is. It is told of waits by a residency that it listens to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from moestream.streaming.reader import ExpertReader
from moestream.streaming.residency import Residency
from moestream.streaming.slots import AnonymousSlots
from moestream.streaming.store import ExpertStore

CAUSES = ("first_layer", "not_guessed", "late", "queue")
_READS = 60


class WaitCauses:
    """Adds up seconds by cause. What a wait takes beyond its reads alone is the disk's queue."""

    def __init__(self, residency: Residency, alone_s: float) -> None:
        self.seconds = dict.fromkeys(CAUSES, 0.0)
        self._residency, self._alone_s = residency, alone_s
        self._guessed: dict[int, int] = {}
        self._wait, self._speculate = residency._wait, residency.speculate
        residency._wait = self._on_wait  # type: ignore[method-assign]
        residency.speculate = self._on_guess  # type: ignore[method-assign]

    def _on_guess(self, layer: int, expert_ids: Sequence[int], ahead: int) -> int:
        base, turn = layer * self._residency.num_experts, self._residency.turn + ahead
        self._guessed.update((base + expert, turn) for expert in expert_ids)
        return self._speculate(layer, expert_ids, ahead)

    def _on_wait(self, keys: list[int], counts: Any) -> list[int]:
        n, turn = self._residency.num_experts, self._residency.turn
        guessed = all(self._guessed.get(key) == turn for key in keys)
        first = not guessed and keys[0] // n == min(self._residency._bytes)  # type: ignore[attr-defined]
        count, started = len(keys), time.perf_counter()
        done = self._wait(keys, counts)
        waited_s = time.perf_counter() - started
        alone_s = min(waited_s, count * self._alone_s)
        cause = "first_layer" if first else "late" if guessed else "not_guessed"
        self.seconds[cause] += alone_s
        self.seconds["queue"] += waited_s - alone_s
        return done


def read_alone_s(engine: Any, method: str) -> float:
    """Seconds in which one expert is read while nothing else is: the median."""
    with ExpertStore(engine.file) as store, ExpertReader(store, method) as reader:
        slots = AnonymousSlots(max(reader.layout.slot_bytes.values()), 1)
        reader.hold(slots)
        times = []
        for key in range(0, _READS * 7, 7):
            started = time.perf_counter()
            reader.submit(key, slots.slot_address(0), False, 0)
            reader.wait_any([key])
            times.append(time.perf_counter() - started)
            reader.forget(key)
        return sorted(times)[len(times) // 2]
