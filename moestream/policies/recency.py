"""Policies that keep lists in order of use: LRU, ARC, LFRU, and random, which keeps none."""

import random
from collections import OrderedDict
from collections.abc import Sequence
from heapq import heappop, heappush

from moestream.policies.base import Decision, Policy

Recency = OrderedDict[int, None]
"""Keys, the least recently used first."""


class LRU(Policy):
    """Drops what was used longest ago."""

    def __init__(self, sizes: Sequence[int], budget_bytes: int) -> None:
        super().__init__(sizes, budget_bytes)
        self._order: Recency = OrderedDict()

    def access(self, keys: Sequence[int], token: int) -> Decision:
        """See ``Policy.access``."""
        order, sizes, missing = self._order, self.sizes, []
        for key in keys:
            if key in order:
                order.move_to_end(key)
            else:
                order[key] = None
                self.used_bytes += sizes[key]
                missing.append(key)
        evicted = []
        # The set in use is the tail of the order.
        while self.used_bytes > self.budget_bytes and len(order) > len(keys):
            key, _ = order.popitem(last=False)
            self.used_bytes -= sizes[key]
            evicted.append(key)
        return missing, evicted


class Random(Policy):
    """Drops any expert: what a policy without information reaches."""

    def __init__(self, sizes: Sequence[int], budget_bytes: int, *, seed: int = 0) -> None:
        super().__init__(sizes, budget_bytes)
        self._random = random.Random(seed)
        self._members: list[int] = []
        self._place: dict[int, int] = {}  # of every resident key in _members

    def access(self, keys: Sequence[int], token: int) -> Decision:
        """See ``Policy.access``."""
        place, members = self._place, self._members
        missing = [key for key in keys if key not in place]
        for key in missing:
            place[key] = len(members)
            members.append(key)
            self.used_bytes += self.sizes[key]
        in_use, evicted = set(keys), []
        while self.used_bytes > self.budget_bytes and len(members) > len(keys):
            key = members[int(self._random.random() * len(members))]
            if key not in in_use:
                self._drop(key)
                evicted.append(key)
        return missing, evicted

    def _drop(self, key: int) -> None:
        last = self._members.pop()
        place = self._place.pop(key)
        if last != key:
            self._members[place] = last
            self._place[last] = place
        self.used_bytes -= self.sizes[key]


class LFRU(Policy):
    """Two parts: a privileged LRU for what was hit again, and an LFU that all else passes through.

    A newcomer enters the unprivileged part; used again, it moves to the privileged one, which
    takes at most half of the budget and hands its least recently used back. What is dropped is the
    unprivileged expert with the fewest uses since it was read; of equals, the first that came.

    Source: Bilal and Kang, A Cache Management Scheme for Efficient Content Eviction and
    Replication in Cache Networks, IEEE Access 2017; counts are not windowed here.
    """

    def __init__(self, sizes: Sequence[int], budget_bytes: int) -> None:
        super().__init__(sizes, budget_bytes)
        self._privileged: Recency = OrderedDict()
        self._privileged_bytes = 0
        self._uses: dict[int, int] = {}  # of every resident key
        self._arrivals = 0
        self._others: dict[int, int] = {}  # key to the number of its arrival
        self._order: list[tuple[int, int, int]] = []  # (uses, arrival, key), some outdated

    def access(self, keys: Sequence[int], token: int) -> Decision:
        """See ``Policy.access``."""
        missing = []
        for key in keys:
            if key not in self._uses:
                self.used_bytes += self.sizes[key]
                missing.append(key)
                self._uses[key] = 1
                self._arrive(key)
                continue
            self._uses[key] += 1
            if key in self._privileged:
                self._privileged.move_to_end(key)
            else:
                self._promote(key)
        return missing, self._evict(set(keys))

    def _arrive(self, key: int) -> None:
        self._arrivals += 1
        self._others[key] = self._arrivals
        heappush(self._order, (self._uses[key], self._arrivals, key))

    def _promote(self, key: int) -> None:
        del self._others[key]
        self._privileged[key] = None
        self._privileged_bytes += self.sizes[key]
        while self._privileged_bytes > self.budget_bytes // 2:
            self._demote()

    def _demote(self) -> None:
        key, _ = self._privileged.popitem(last=False)
        self._privileged_bytes -= self.sizes[key]
        self._arrive(key)

    def _evict(self, in_use: set[int]) -> list[int]:
        evicted: list[int] = []
        passed_over = []
        while self.used_bytes > self.budget_bytes and (self._order or self._privileged):
            if not self._order:
                self._demote()
            entry = heappop(self._order)
            _, arrival, key = entry
            if self._others.get(key) != arrival:
                continue
            if key in in_use:
                passed_over.append(entry)
                continue
            del self._others[key], self._uses[key]
            self.used_bytes -= self.sizes[key]
            evicted.append(key)
        for entry in passed_over:
            heappush(self._order, entry)
        return evicted
