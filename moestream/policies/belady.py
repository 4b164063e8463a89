"""Belady's rule: drop what is needed last. It knows the future, so it is a bound, not a policy."""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from moestream.policies.base import Decision, Policy

_NEVER = 2**62
_SLACK = 8  # heap entries a key before the outdated ones are swept out


class Belady(Policy):
    """Drops what is needed furthest in the future, and of equal ones the lowest key.

    ``next_uses`` says of every access, in order, when its key is asked for again. The rule is the
    best that can be done when all experts have one size, and close to it when sizes are alike.
    With ``bypass`` an expert may be read, used and dropped at once, so that the budget holds even
    when a routed set is bigger.

    Source: Belady, A Study of Replacement Algorithms, IBM Systems Journal 1966.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        budget_bytes: int,
        *,
        next_uses: Sequence[int],
        bypass: bool = False,
    ) -> None:
        super().__init__(sizes, budget_bytes)
        self._next_uses = next_uses
        self._bypass = bypass
        self._n_accesses = 0
        self._next: dict[int, int] = {}  # of every resident key
        self._furthest: list[tuple[int, int]] = []  # (-next use, key), some outdated

    def access(self, keys: Sequence[int], token: int) -> Decision:
        """See ``Policy.access``; with ``bypass`` what was missing may be dropped again."""
        begin, resident = self._n_accesses, self._next
        self._n_accesses += len(keys)
        missing = []
        for key, next_use in zip(keys, self._next_uses[begin : self._n_accesses], strict=True):
            if key not in resident:
                missing.append(key)
                self.used_bytes += self.sizes[key]
            resident[key] = next_use
            heappush(self._furthest, (-next_use, key))
        evicted = self._evict(() if self._bypass else keys)
        if len(self._furthest) > _SLACK * len(self.sizes):
            self._furthest = [(-next_use, key) for key, next_use in resident.items()]
            heapify(self._furthest)
        return missing, evicted

    def _evict(self, in_use: Sequence[int]) -> list[int]:
        evicted: list[int] = []
        passed_over: list[tuple[int, int]] = []
        while self.used_bytes > self.budget_bytes and self._furthest:
            entry = heappop(self._furthest)
            key = entry[1]
            if self._next.get(key) != -entry[0]:
                continue  # used since it was noted, or gone
            if key in in_use:
                passed_over.append(entry)
                continue
            del self._next[key]
            self.used_bytes -= self.sizes[key]
            evicted.append(key)
        for entry in passed_over:
            heappush(self._furthest, entry)
        return evicted


def next_uses(keys: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """When each access's key is asked for again, as the number of the routed set.

    ``keys`` (N,) are those of all sets, ``starts`` (S + 1,) where each set begins.
    """
    sets = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.argsort(keys, kind="stable")
    again = keys[order[:-1]] == keys[order[1:]]
    result = np.full(len(keys), _NEVER, np.int64)
    result[order[:-1][again]] = sets[order[1:][again]]
    return result
