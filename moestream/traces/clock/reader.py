"""A disk that exists in the clock alone, behind the face of ``ExpertReader``.

Owns the time that it is, and what is being read at that time. The order of things is that of
``native/io/reader_threads.cpp``: demand before guesses, pieces of an expert one after another, one
thread always left to a demand. Keep the two alike.
"""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from moestream.streaming.layout import ALIGNMENT, FIELDS, Layout
from moestream.streaming.reader import ABSENT, FAILED, QUEUED, READING, READY, ExpertReader
from moestream.traces.clock.machine import ClockDisk

PARTS = 3
"""Ranges of an expert in a file: gate, up, down."""
_NEVER = float("inf")


@dataclass(slots=True)
class _Job:
    generation: int
    speculative: bool
    next_piece: int = 0
    under_way: int = 0


class ClockedReader(ExpertReader):
    """Reads in a time of its own: ``now``, which goes on by ``compute`` and by waiting."""

    def __init__(self, disk: ClockDisk, expert_bytes: Mapping[int, int], num_experts: int) -> None:
        self.now = 0.0
        self.busy_s = 0.0
        """With at least one read under way."""
        self.method = "direct"
        self._disk = disk
        self._chance = random.Random(0)
        self._num_experts = num_experts
        self._pieces = {n: _pieces(size, disk.piece_bytes) for n, size in expert_bytes.items()}
        keys = (max(expert_bytes) + 1) * num_experts
        self.states = memoryview(bytearray(keys))
        self.layout = _layout(expert_bytes, keys)
        self._jobs: dict[int, _Job] = {}
        self._demand: deque[int] = deque()
        self._guessed: deque[int] = deque()
        self._events: list[tuple[float, int, int, bool]] = []  # when, its number, key, on a guess
        self._begun = self._guesses_under_way = self._cancelled = self._deepest = 0
        self._bytes = {True: 0, False: 0}
        self._channel_free = 0.0
        self._busy_since = _NEVER
        self._held: list[object] = []
        self.submit = self._submit
        self.cancel_before = self._cancel_before
        self.forget = self._forget
        self.counters = self._counters
        self.wait_done = self.wait_any

    def compute(self, seconds: float) -> None:
        """Let so much arithmetic be done, while reads go on and take their part of the cores."""
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self._finish()
            until += self._disk.piece_cpu_s
        self.now = until

    def wait_any(self, keys: Sequence[int]) -> list[int]:
        """See ``ExpertReader.wait_any``: here, time goes on until one is read."""
        states, waited = self.states, False
        while not (done := [key for key in keys if states[key] in (READY, FAILED)]):
            self._finish()
            waited = True
        if waited:
            self.compute(self._disk.notice_s)
        return done

    def part_addresses(self, key: int, slot_address: int) -> NDArray[np.int64]:
        """See ``ExpertReader.part_addresses``: nobody looks there."""
        return np.full(PARTS, slot_address, np.int64)

    def close(self) -> None:
        """There is nothing to end."""

    def _submit(self, key: int, destination: int, speculative: bool, generation: int) -> None:
        state = self.states[key]
        if state == READY:
            return
        if state in (QUEUED, READING):
            job = self._jobs[key]
            if speculative or not job.speculative:
                return
            job.speculative = False
            if key in self._guessed:
                self._guessed.remove(key)
                self._demand.append(key)
        else:
            self._jobs[key] = _Job(generation, speculative)
            self.states[key] = QUEUED
            (self._guessed if speculative else self._demand).append(key)
        self._begin()

    def _cancel_before(self, generation: int) -> list[int]:
        cancelled = [
            key
            for key in self._guessed
            if self._jobs[key].generation < generation and self.states[key] == QUEUED
        ]
        for key in cancelled:
            self._guessed.remove(key)
            self.states[key] = ABSENT
        self._cancelled += len(cancelled)
        return cancelled

    def _forget(self, key: int) -> None:
        self.states[key] = ABSENT

    def _counters(self) -> dict[str, int]:
        busy_s = self.busy_s + (self.now - self._busy_since if self._events else 0.0)
        return {
            "demand_bytes": self._bytes[False],
            "speculative_bytes": self._bytes[True],
            "pieces": self._begun - len(self._events),
            "cancelled": self._cancelled,
            "busy_ns": int(busy_s * 1e9),
            "deepest": self._deepest,
        }

    def _begin(self) -> None:
        """Give every thread that is free a piece."""
        while len(self._events) < self._disk.threads:
            if self._demand:
                queue = self._demand
            elif self._guessed and self._guesses_under_way < max(1, self._disk.threads - 1):
                queue = self._guessed
            else:
                return
            self._begin_piece(queue)

    def _begin_piece(self, queue: deque[int]) -> None:
        key = queue[0]
        job, sizes = self._jobs[key], self._pieces[key // self._num_experts]
        n_bytes = sizes[job.next_piece]
        job.next_piece += 1
        job.under_way += 1
        self.states[key] = READING
        if job.next_piece == len(sizes):
            queue.popleft()
        if not self._events:
            self._busy_since = self.now
        self._guesses_under_way += job.speculative
        self._bytes[job.speculative] += n_bytes
        begins = max(self.now + self._disk.latency_s, self._channel_free)
        self._channel_free = begins + n_bytes / self._disk.bytes_per_s * self._varied()
        self._begun += 1
        heappush(self._events, (self._channel_free, self._begun, key, job.speculative))
        self._deepest = max(self._deepest, len(self._events))

    def _varied(self) -> float:
        """Times as long as on average: what is read late is waited for, what is early is not."""
        if not self._disk.spread:
            return 1.0
        shape = self._disk.spread**-2
        return self._chance.gammavariate(shape, 1 / shape)

    def _finish(self) -> None:
        """Go on to the end of the next piece, and begin what a thread is free for by then."""
        self.now, _, key, speculative = heappop(self._events)
        if not self._events:
            self.busy_s += self.now - self._busy_since
        self._guesses_under_way -= speculative
        job = self._jobs[key]
        job.under_way -= 1
        if not job.under_way and job.next_piece == len(self._pieces[key // self._num_experts]):
            self.states[key] = READY
        self._begin()


def _pieces(expert_bytes: int, piece_bytes: int) -> list[int]:
    """Bytes of each read that one expert takes."""
    size = -(-expert_bytes // PARTS)
    count = max((size + piece_bytes // 2) // piece_bytes, 1)
    rest = size - (count - 1) * piece_bytes
    return [*[piece_bytes] * (count - 1), rest] * PARTS


def _layout(expert_bytes: Mapping[int, int], keys: int) -> Layout:
    """As much of a file's layout as slots are made by."""
    return Layout(
        ranges=np.zeros((keys, PARTS, len(FIELDS)), np.int64),
        parts=np.zeros((keys, PARTS), np.int64),
        slot_bytes={n: slot_bytes(size) for n, size in expert_bytes.items()},
    )


def slot_bytes(expert_bytes: int) -> int:
    """What one expert takes in memory, whole pages of each part."""
    return PARTS * (-(-expert_bytes // PARTS // ALIGNMENT) + 1) * ALIGNMENT
