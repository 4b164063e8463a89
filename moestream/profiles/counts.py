"""Counts uses of experts as they happen."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.profiles.fingerprint import Fingerprint
from moestream.profiles.profile import Profile

_BUFFER = 64
"""Tokens that a layer's routing is kept for before it is counted: to count one costs as much."""


class UseCounter:
    """Plain and decayed counts of what a model's layers route to."""

    def __init__(self, layers: Iterable[int], num_experts: int, half_life: float) -> None:
        self._rows = {layer: row for row, layer in enumerate(layers)}
        self._half_life = half_life
        self._uses = np.zeros((len(self._rows), num_experts), np.int64)
        self._decayed = np.zeros((len(self._rows), num_experts))
        self._tokens = [0] * len(self._rows)
        self._waiting: list[list[NDArray[np.int32]]] = [[] for _ in self._rows]

    def add(self, layer: int, expert_ids: NDArray[np.int32]) -> None:
        """Note what a layer routed (T, k) for consecutive tokens."""
        row = self._rows[layer]
        waiting = self._waiting[row]
        waiting.append(expert_ids)
        if len(waiting) >= _BUFFER or len(expert_ids) >= _BUFFER:
            self._count_waiting(row)

    def add_routed(self, layer: int, experts: NDArray[np.int32], tokens: NDArray[np.int64]) -> None:
        """Count experts (N,), each routed to for one of ``tokens`` (N,), numbered from 0 on."""
        self._count(self._rows[layer], experts, tokens)

    def profile(
        self, name: str, model: str, fingerprint: Fingerprint, options: Mapping[str, Any]
    ) -> Profile:
        """Return what was counted so far."""
        uses, decayed = self.counts()
        return Profile(
            name=name,
            model=model,
            fingerprint=fingerprint,
            tokens=max(self._tokens),
            uses=uses,
            decayed=decayed,
            half_life=self._half_life,
            options=options,
        )

    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Plain and decayed counts so far: (L, N) each."""
        for row in range(len(self._rows)):
            self._count_waiting(row)
        return self._uses.copy(), self._decayed.copy()

    def _count_waiting(self, row: int) -> None:
        if self._waiting[row]:
            ids = np.concatenate(self._waiting[row])
            self._waiting[row].clear()
            self._count(row, ids.ravel(), np.repeat(np.arange(len(ids)), ids.shape[1]))

    def _count(self, row: int, experts: NDArray[np.int32], tokens: NDArray[np.int64]) -> None:
        count, last = self._uses.shape[1], int(tokens[-1])
        worth = 2.0 ** ((tokens - last) / self._half_life)
        self._decayed[row] *= 2.0 ** (-(last + 1) / self._half_life)
        self._decayed[row] += np.bincount(experts, worth, count)
        self._uses[row] += np.bincount(experts, minlength=count)
        self._tokens[row] += last + 1
