"""Which experts are in memory when a layer asks for them, and who reads those that are not.

``Residency`` owns the order of things in one layer's turn: tell the policy, start all missing
reads, hand out what is there, wait for the rest. How experts come to be in memory is its
subclasses' affair: ``SlotResidency`` reads into slots of its own, ``MappedResidency`` pages the
file in. Knows nothing of arithmetic; it never changes *what* is computed, only when.
"""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from moestream.streaming.reader import ExpertReader
from moestream.streaming.statistics import Counts, ResidencyStats, Tally
from moestream.streaming.view import Marks

Arrivals = Iterator[Sequence[int]]
"""Expert ids in batches, each in memory from when it is yielded until the next is asked for."""

Warmed = Callable[[int, int], None]
"""Called with how many experts have been brought in from a profile, and how many there are."""

_PROMPT_TAIL = 24
"""Tokens at the end of a prefill chunk whose routing counts: what comes next resembles them."""


_WARMING = 32
"""Experts asked for at once when a profile's are read: enough to keep all threads reading."""


def popular_first(expert_ids: NDArray[np.int32]) -> list[int]:
    """The experts that some tokens (T, k) chose: the most chosen first, then in the file's order.

    While an expert of many tokens is computed, the next ones are read.

    Source: Fate, arXiv 2502.12224, which loads a prompt's experts by popularity.
    """
    tokens = Counter(expert_ids.ravel().tolist())
    return sorted(tokens, key=lambda expert: (-tokens[expert], expert))


class Residency(ABC):
    """A policy and the means to carry it out. Not for use by two threads at once."""

    shares: Mapping[int, float] = MappingProxyType({})
    """Share of an expert that is kept, by layer, where it may be less than all."""
    pin: str
    """How hot experts are kept: ``copy``, ``mlock`` or ``none``."""

    def __init__(self, reader: ExpertReader, addresses: NDArray[np.uint64], experts: int) -> None:
        self.reader = reader
        self.addresses = addresses
        """(K, 3): where gate, up and down of each key begin; true for what ``fetch`` yields."""
        self.num_experts = experts
        self.token = 0
        self.turn = 0
        """Counts calls of ``fetch``: what guesses and their cancellation are numbered by."""
        self.wanted = 0
        """Routed experts that were not in memory when asked for, or only on a guess."""
        self.waited, self.waited_s = 0, 0.0
        """Missing experts of turns in which no guess was late, and the seconds of waiting for them:
        what a miss costs that nobody foresees."""
        self._is_late = False
        """Whether a guess is, in this turn."""
        self.counts = ResidencyStats()
        self.guessed: list[int] | None = None
        """Takes the keys that are read on a guess, if somebody wants to know them."""
        self._last_layer = -1
        self._held_layer = -1
        self._missing: Sequence[int] = ()  # keys, of the last turn

    def fetch(
        self, layer: int, expert_ids: NDArray[np.int32], *, more: bool = False
    ) -> Arrivals | None:
        """Start reading what is missing of the experts (T, k) that a layer's router chose.

        With ``more``, other tokens of the same pass ask this layer next, until ``let_go``: what is
        read for them is kept that long. The policy hears of none of these, as what comes after a
        prompt resembles its end.

        Returns an iterator that yields every chosen expert once, in order of arrival, or None if
        all are in memory and stay there until the next ``fetch``; by then, it must be used up or
        dropped.

        Raises, from the iterator:
            ModelFormatError, StorageError: see ``ExpertReader.wait_any``.
        """
        self.turn += 1
        if not more:
            if layer <= self._last_layer:
                self.token += 1
            self._last_layer = layer
        base = layer * self.num_experts
        if len(expert_ids) == 1 and not more:
            keys = [base + expert for expert in expert_ids[0].tolist()]
            return self._fetch(layer, keys, (keys,), self.counts.decode)
        rows = [] if more else expert_ids[-_PROMPT_TAIL:].tolist()
        tail = [[base + expert for expert in row] for row in rows]
        held, self._held_layer = self._held_layer, layer if more else self._held_layer
        if more and held != layer:
            self._make_room_for_layers()
        union = [base + expert for expert in popular_first(expert_ids)]
        arrivals = self._fetch(layer, union, tail, self.counts.prefill)
        if more and held != layer:
            self._read_layer_after(layer)
        return arrivals

    def missing(self, layer: int) -> list[int]:
        """Which experts of the last ``fetch``, for this layer, were not in memory at its call."""
        base = layer * self.num_experts
        return [key - base for key in self._missing]

    @abstractmethod
    def contents(self, layer: int) -> list[int]:
        """Which experts of a layer were in memory at the last ``fetch``, which was for this layer.

        To be asked before its iterator is used.
        """

    @abstractmethod
    def marks(self) -> Marks:
        """Of every key: whether it is ``IN_MEMORY``, and whether it is to be ``KEPT``.

        For who looks on; to be asked between two passes.
        """

    @abstractmethod
    def _fetch(
        self, layer: int, keys: list[int], uses: Sequence[list[int]], counts: Counts
    ) -> Arrivals | None:
        """Fetch ``keys``, of which the policy is to hear the ``uses``; set ``_missing``."""

    @abstractmethod
    def warm(self, rates: Sequence[float], progress: Warmed | None = None) -> None:
        """Begin with a profile's hottest experts in memory, and the policy's counts from it.

        ``rates`` (K,) are uses a token by key. To be called before the first ``fetch``. What is
        read is read in the order of the file.

        Raises:
            ModelFormatError, StorageError: see ``ExpertReader.wait_any``.
        """

    def may_lack(self, layer: int, expert_ids: Sequence[int]) -> bool:
        """Whether any of these may not be in memory: a quick look, which need not be sure."""
        return len(expert_ids) > 0

    @abstractmethod
    def speculate(self, layer: int, expert_ids: Sequence[int], ahead: int) -> int:
        """Read experts that the layer ``ahead`` turns from now may want; return how many.

        They wait for all demand, and are dropped unread if that turn comes first.
        """

    def let_go(self) -> None:
        """The last tokens of a long pass have gone through the layer that they asked."""
        self._held_layer = -1

    def begin_long_pass(self) -> None:
        """All experts will be wanted, a layer after the other: the first while it attends."""
        self._make_room_for_layers()
        self._read_layer_after(-1)

    def end_long_pass(self) -> None:
        """It has come to its end, or was broken off."""
        self.let_go()

    def _make_room_for_layers(self) -> None:  # noqa: B027 - the page cache has its own room
        """A long pass comes to a layer."""

    def _read_layer_after(self, layer: int) -> None:  # noqa: B027 - nor does it want to be told
        """It will want all of the next layer's experts."""

    @abstractmethod
    def give_back(self, n_bytes: int) -> int:
        """Use at least so much less memory from now on, as far as possible; return how much."""

    @abstractmethod
    def take_back(self, n_bytes: int) -> int:
        """Use at most so much more again, of what was given back; return how much."""

    @property
    def pinned_bytes(self) -> int:
        """Memory that experts hold for sure."""
        return self.counts.pinned_bytes

    def tally(self) -> Tally:
        """What is shown while it goes on, without a look at every expert."""
        native, decode = self.reader.counters(), self.counts.decode
        read_bytes = native["demand_bytes"] + native["speculative_bytes"]
        return Tally(decode.hits, decode.misses, self.pinned_bytes, read_bytes)

    def stats(self) -> ResidencyStats:
        """What was done so far; this may look at every expert, so it is for the end."""
        native, counts = self.reader.counters(), self.counts
        counts.read_bytes = native["demand_bytes"] + native["speculative_bytes"]
        counts.read_busy_s = native["busy_ns"] / 1e9
        counts.deepest_queue = native["deepest"]
        counts.cancelled = native["cancelled"]
        return counts

    def close(self) -> None:
        """End the reads and let the memory go."""
        self.reader.close()

    def _read_in_order(
        self,
        keys: Sequence[int],
        begin: Callable[[int], None],
        end: Callable[[int], None],
        progress: Warmed,
    ) -> None:
        """Read ``keys``: ``begin`` submits one, ``end`` hears that it is in memory."""
        left = iter(self.reader.file_order(keys))
        under_way: list[int] = []
        n_done = 0
        while n_done < len(keys):
            while len(under_way) < _WARMING and (key := next(left, None)) is not None:
                begin(key)
                under_way.append(key)
            for key in self.reader.wait_any(under_way):
                under_way.remove(key)
                end(key)
                n_done += 1
            progress(n_done, len(keys))

    def _note_missing(self, counts: Counts, missing: int, foreseen: int, late: int) -> None:
        """Count what was not in memory, or only on a guess, when it was asked for."""
        counts.misses += missing
        counts.foreseen += foreseen
        counts.late += late
        self._is_late = False
        self._note_wanted(missing + foreseen, foreseen, late)

    def _note_wanted(self, wanted: int, foreseen: int, late: int) -> None:
        """Count, in a turn that has begun, what a guess may save waiting for."""
        self.wanted += wanted
        self._is_late |= late > 0
        if not self._is_late:
            self.waited += wanted - foreseen

    def _note_wait(self, counts: Counts, seconds: float) -> None:
        counts.stall_s += seconds
        if not self._is_late:
            self.waited_s += seconds

    def _wait(self, keys: list[int], counts: Counts) -> list[int]:
        """Wait for at least one of ``keys``, which are left with the others."""
        started = time.perf_counter()
        try:
            done = self.reader.wait_any(keys)
        finally:
            self._note_wait(counts, time.perf_counter() - started)
        for key in done:
            keys.remove(key)
        return done
