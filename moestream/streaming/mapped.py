"""Residency in the file's own mapping: missing experts are paged in, hot ones are locked.

Owns who is locked, and the room: what of the mapping is this process's memory beyond it is let go
(``Footprint``). What of it stays in memory is the page cache's decision, so every expert that is
not locked is looked up (``mincore``) each time it is asked for.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.policies import Policy, hottest
from moestream.streaming.footprint import Footprint
from moestream.streaming.reader import ExpertReader
from moestream.streaming.residency import Arrivals, Residency, Warmed
from moestream.streaming.statistics import Counts, ResidencyStats
from moestream.streaming.view import IN_MEMORY, KEPT, Marks, PageLooks

_SHARES = 8
"""A batch of a layer's experts is one in so many parts of the room, at most."""
_SHARES_AHEAD = 4
"""The same of those that are being paged in, which is room already."""


class MappedResidency(Residency):
    """Experts in the page cache; with a ``policy``, those that it keeps are locked there."""

    def __init__(
        self,
        reader: ExpertReader,
        addresses: NDArray[np.uint64],
        policy: Policy | None,
        expert_bytes: Mapping[int, int],
        num_experts: int,
        *,
        room_bytes: int,
        fits: bool = False,
    ) -> None:
        """Start with nothing locked; with ``fits``, what was seen in memory is taken to stay.

        ``room_bytes`` is what experts, locked or not, may take of the page cache.
        """
        super().__init__(reader, addresses, num_experts)
        self.pin = "mlock" if policy else "none"
        self._policy = policy
        self._bytes = expert_bytes
        self._fits = fits
        self._stays = bytearray(len(addresses))  # locked, or seen in memory that it need not leave
        self._wanted = bytearray(len(addresses))  # by the policy
        self._guesses: dict[int, int] = {}  # and the turn that each is for
        self._footprint = Footprint(reader, room_bytes, fenced=not fits)
        self._looks = PageLooks(reader, expert_bytes, num_experts)
        self.counts.budget_bytes = policy.budget_bytes if policy else 0
        self._most_room, self._most_kept = room_bytes, self.counts.budget_bytes

    def _fetch(
        self, layer: int, keys: list[int], uses: Sequence[list[int]], counts: Counts
    ) -> Arrivals | None:
        counts.turns += 1
        stays, n_bytes = self._stays, self._bytes[layer]
        missing = [key for key in keys if not stays[key] and not self.reader.is_resident(key)]
        self._missing = missing
        late = guessed = 0
        for key in keys if self._guesses else ():
            if self._guesses.pop(key, None) is not None:
                guessed += 1
                late += key in missing
        self.counts.useful_bytes += guessed * n_bytes
        self._note_missing(counts, len(missing), guessed - late, late)
        counts.hits += len(keys) - len(missing)
        counts.demand_bytes += n_bytes * (len(missing) - late)
        waiting, later = self._demand(missing, 0)
        if self._guesses:
            self._end_guesses()
        for used in uses:
            self._admit(used)
        if self._fits:
            for key in keys:
                stays[key] = 1
            if not missing:
                return None
        absent = set(missing)
        there = [key for key in keys if key not in absent]
        return self._arrive(layer * self.num_experts, there, waiting, later, counts)

    def _demand(self, missing: list[int], under_way: int) -> tuple[list[int], list[int]]:
        """Start paging in as many as there is room for; return these and the others."""
        most = len(missing)
        if not self._fits:
            most = max(self._footprint.some(missing, _SHARES_AHEAD) - under_way, 0)
        begun, later = missing[:most], missing[most:]
        self._touch(begun)  # room is made before it is taken
        for key in begun:
            self.reader.forget(key)  # what was read may have been evicted since
            self.reader.submit(key, 0, False, self.turn)
        return begun, later

    def contents(self, layer: int) -> list[int]:
        """See ``Residency.contents``."""
        base, missing = layer * self.num_experts, set(self._missing)
        resident = self.reader.is_resident
        return [key - base for key in self._keys(layer) if key not in missing and resident(key)]

    def marks(self) -> Marks:
        """See ``Residency.marks``."""
        locked = np.frombuffer(self._footprint.locked, np.uint8)
        stays = np.frombuffer(self._stays, np.uint8)
        marks: Marks = self._looks.marks() | stays * np.uint8(IN_MEMORY) | locked * np.uint8(KEPT)
        return marks

    def _admit(self, keys: list[int]) -> None:
        policy = self._policy
        if policy is None or policy.budget_for(keys[0]) < sum(map(self._size, keys)):
            return
        missing, evicted = policy.access(keys, self.token)
        for key in missing:
            self._wanted[key] = 1
        for key in evicted:
            self._wanted[key] = 0
            self._unlock(key)

    def _arrive(
        self, base: int, done: list[int], waiting: list[int], later: list[int], counts: Counts
    ) -> Arrivals:
        while done or waiting or later:
            for key in done:
                if self._wanted[key] and not self._footprint.locked[key]:
                    self._lock(key)
            most = len(done) or 1 if self._fits else self._footprint.some(done, _SHARES)
            for start in range(0, len(done), most):
                some = done[start : start + most]
                self._touch(some)
                yield [key - base for key in some]
            if later:
                begun, later = self._demand(later, len(waiting))
                waiting += begun
            done = self._wait(waiting, counts) if waiting else []
            for key in done:
                self.reader.forget(key)

    def _touch(self, keys: list[int]) -> None:
        """Note that these are used now, and let go of others as far as room is short."""
        if not self._fits:
            self._footprint.touch(keys)

    def _lock(self, key: int) -> None:
        if self._footprint.lock(key):
            self._stays[key] = 1
            self.counts.pinned_bytes += self._size(key)

    def _unlock(self, key: int) -> None:
        if self._footprint.locked[key]:
            self._footprint.unlock(key)
            self._stays[key] = 0
            self.counts.pinned_bytes -= self._size(key)

    def _size(self, key: int) -> int:
        return self._bytes[key // self.num_experts]

    def _end_guesses(self) -> None:
        """Take back guesses for turns that have come, and forget those that were wrong."""
        for key in self.reader.cancel_before(self.turn + 1):
            self._guesses.pop(key, None)
            self.counts.speculative_bytes -= self._size(key)
        past = [key for key, turn in self._guesses.items() if turn <= self.turn]
        for key in past:
            self.reader.forget(key)
            del self._guesses[key]
            self.counts.wasted_bytes += self._size(key)

    def warm(self, rates: Sequence[float], progress: Warmed | None = None) -> None:
        """See ``Residency.warm``: what is in the page cache already is not read."""
        started, warming = time.perf_counter(), self.counts.warming
        sizes = [self._bytes.get(key // self.num_experts, 0) for key in range(len(rates))]
        wanted = self._policy.seed(rates) if self._policy else []
        for key in wanted:
            self._wanted[key] = 1
        keys = list({*wanted, *hottest(rates, sizes, self._footprint.room_bytes)})
        missing = [key for key in keys if not self.reader.is_resident(key)]
        for key in set(keys) - set(missing):
            self._keep_warmed(key)
        self._read_in_order(
            missing,
            lambda key: self.reader.submit(key, 0, False, self.turn),
            self._end_warming,
            progress or (lambda done, total: None),
        )
        warming.experts, warming.bytes = len(keys), sum(map(self._size, keys))
        warming.read_bytes = sum(map(self._size, missing))
        warming.elapsed_s = time.perf_counter() - started

    def _end_warming(self, key: int) -> None:
        self.reader.forget(key)
        self._keep_warmed(key)

    def _keep_warmed(self, key: int) -> None:
        if self._wanted[key]:
            self._lock(key)
        if self._fits:
            self._stays[key] = 1
        self._touch([key])

    def speculate(self, layer: int, expert_ids: Sequence[int], ahead: int) -> int:
        """See ``Residency.speculate``."""
        begun = []
        for expert in expert_ids:
            key = layer * self.num_experts + expert
            if self._stays[key] or key in self._guesses or self.reader.is_resident(key):
                continue
            begun.append(key)
        if self.guessed is not None:
            self.guessed += begun
        self._touch(begun)  # room is made before it is taken
        for key in begun:
            self._guesses[key] = self.turn + ahead
            self.reader.forget(key)
            self.reader.submit(key, 0, True, self.turn + ahead)
        self.counts.speculative_bytes += len(begun) * self._bytes[layer]
        return len(begun)

    def give_back(self, n_bytes: int) -> int:
        """See ``Residency.give_back``: what is locked stays within half of the room."""
        less = min(n_bytes, self._footprint.room_bytes)
        self._footprint.room_bytes -= less
        if self._policy is not None:
            above = self._policy.budget_bytes - self._footprint.room_bytes // 2
            for key in self._policy.lower(
                min(max(above, 0), self._policy.budget_bytes), self.token
            ):
                self._wanted[key] = 0
                self._unlock(key)
        self._touch([])
        return less

    def take_back(self, n_bytes: int) -> int:
        """See ``Residency.take_back``."""
        footprint = self._footprint
        more = min(n_bytes, self._most_room - footprint.room_bytes)
        footprint.room_bytes += more
        if self._policy is not None:
            whole = footprint.room_bytes == self._most_room
            most = self._most_kept if whole else min(self._most_kept, footprint.room_bytes // 2)
            self._policy.lower(min(self._policy.budget_bytes - most, 0), self.token)
        return more

    def stats(self) -> ResidencyStats:
        """See ``Residency.stats``."""
        counts = super().stats()
        counts.resident_bytes = sum(
            self._bytes[layer] * sum(map(self.reader.is_resident, self._keys(layer)))
            for layer in self._bytes
        )
        return counts

    def _keys(self, layer: int) -> range:
        return range(layer * self.num_experts, (layer + 1) * self.num_experts)

    def close(self) -> None:
        """See ``Residency.close``."""
        self._footprint.close()
        self.counts.pinned_bytes = 0
        super().close()
