"""Runs the live residency, policies and prefetcher on a trace, in the clock's time.

Owns the order of a token's events, which is that of ``layers/moe.py``: arithmetic up to the router,
the layer's demand, guesses for later layers, the experts as they arrive. What is decided is decided
by the same code as in a run; none of it is written again here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from moestream.choices import LayerBudget
from moestream.policies import PolicyFactory
from moestream.streaming.build import spare_slots
from moestream.streaming.division import Division, kept_tables, size_classes
from moestream.streaming.prefetch import EachAlone, Prefetcher
from moestream.streaming.slotted import SlotResidency
from moestream.streaming.statistics import Counts, ResidencyStats
from moestream.streaming.store import ExpertStore
from moestream.traces.clock.foretold import Foretell
from moestream.traces.clock.machine import ClockDisk, Work
from moestream.traces.clock.reader import ClockedReader
from moestream.traces.clock.turns import Pass, Turn


@dataclass(frozen=True, slots=True)
class Timing:
    """What a replay took; of decode alone, but for ``warm_up`` tokens of it."""

    tokens: int
    seconds: float
    stall_s: float
    compute_s: float
    """Of arithmetic, that of guesses among it."""
    busy_s: float
    """In which the disk read."""
    read_bytes: float
    counts: ResidencyStats

    @property
    def tps(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    @property
    def stall_ms(self) -> float:
        """Milliseconds that a token waits."""
        return 1e3 * self.stall_s / self.tokens

    @property
    def overlapped(self) -> float:
        """Share of the disk's time in which something was computed."""
        return max(1 - self.stall_s / self.busy_s, 0.0) if self.busy_s else 0.0


class ClockedResidency(SlotResidency):
    """``SlotResidency`` that waits in the clock's time."""

    reader: ClockedReader
    submit_s = 0.0
    submitting_s = 0.0
    """That asking for guesses has taken."""

    def speculate(self, layer: int, expert_ids: Sequence[int], ahead: int) -> int:
        """See ``Residency.speculate``: to ask takes its time."""
        begun = super().speculate(layer, expert_ids, ahead)
        self.submitting_s += begun * self.submit_s
        self.reader.compute(begun * self.submit_s)
        return begun

    def _wait(self, keys: list[int], counts: Counts) -> list[int]:
        started = self.reader.now
        done = self.reader.wait_any(keys)
        self._note_wait(counts, self.reader.now - started)
        for key in done:
            keys.remove(key)
        return done


@dataclass(frozen=True, slots=True)
class _Shape:
    """What dividing memory asks of a store of experts."""

    num_experts: int
    num_keys: int


@dataclass(frozen=True, slots=True)
class Setting:
    """A model and how its experts are streamed; ``expert_bytes`` are by layer."""

    expert_bytes: Mapping[int, int]
    num_experts: int
    num_experts_per_tok: int
    make_policy: PolicyFactory
    experts_bytes: int
    layers_ahead: int = 1
    """0 guesses nothing."""
    layer_budget: LayerBudget = "global"
    tries_without: bool = True
    """Whether guesses are left out where to make them takes longer than it saves."""

    def open(self, disk: ClockDisk) -> ClockedResidency:
        """A residency as ``open_slots`` makes it, on a disk of the clock."""
        reader = ClockedReader(disk, self.expert_bytes, self.num_experts)
        keys = len(reader.states)
        addresses: NDArray[np.uint64] = np.zeros((keys, 3), np.uint64)
        spare = spare_slots(self.num_experts_per_tok, self.layers_ahead)
        division = Division(self.make_policy, self.layer_budget, spare, self.num_experts_per_tok)
        store = cast(ExpertStore, _Shape(self.num_experts, keys))
        classes = size_classes(reader.layout.slot_bytes)
        tables = kept_tables(store, reader, addresses, division, self.experts_bytes, classes)
        return ClockedResidency(reader, addresses, tables, self.expert_bytes, self.num_experts)


class Replay:
    """One replay: a residency, who guesses for it, and the time that it is."""

    def __init__(
        self, setting: Setting, disk: ClockDisk, work: Work, foretell: Foretell | None
    ) -> None:
        """Without ``foretell``, nothing is guessed."""
        self.residency = setting.open(disk)
        self.residency.submit_s = work.submit_s
        self._reader = self.residency.reader
        self._work = work
        self._foretell = foretell
        self._turns: Pass = ()
        self._place = 0
        self._places: dict[int, int] = {}
        self._prefetcher: Prefetcher | None = None
        if foretell is not None and setting.layers_ahead:
            layers = sorted(setting.expert_bytes)
            self._places = {layer: place for place, layer in enumerate(layers)}
            self._prefetcher = Prefetcher(
                self.residency,
                layers,
                EachAlone({layer: partial(self._guess, layer) for layer in layers}),
                layers_ahead=setting.layers_ahead,
                clock=lambda: self._reader.now,
                tries_without=setting.tries_without,
            )
        self.compute_s = 0.0

    def run(self, passes: Iterable[Pass], warm_up: int = 0) -> Timing:
        """Replay passes; what comes before and in ``warm_up`` decoded tokens is not counted."""
        begun = self._measures()
        tokens = 0
        for turns in passes:
            if turns[0].decode:
                if tokens == warm_up:
                    begun = self._measures()
                tokens += 1
            self._pass(turns)
        seconds, stall_s, compute_s, busy_s, n_bytes = (self._measures() - begun).tolist()
        counts = self.residency.stats()
        return Timing(tokens - warm_up, seconds, stall_s, compute_s, busy_s, n_bytes, counts)

    def _measures(self) -> NDArray[np.float64]:
        native, stall_s = self._reader.counters(), self.residency.counts.decode.stall_s
        read_bytes = native["demand_bytes"] + native["speculative_bytes"]
        busy_s = native["busy_ns"] / 1e9
        compute_s = self.compute_s + self.residency.submitting_s
        return np.array([self._reader.now, stall_s, compute_s, busy_s, read_bytes])

    def _pass(self, turns: Pass) -> None:
        self._turns = turns
        if self._prefetcher is not None:
            self._prefetcher.before_pass(len(turns[0].expert_ids))
        for place, turn in enumerate(turns):
            self._place = place
            self._turn(turn)
        if self._prefetcher is not None:
            self._prefetcher.after_pass()
        self._compute(self._work.token_s)

    def _turn(self, turn: Turn) -> None:
        work, counts = self._work, self.residency.counts.decode
        self._compute(work.layer_s)
        missed, stalled_s = counts.misses, counts.stall_s
        arrivals = self.residency.fetch(turn.layer, turn.expert_ids)
        self._compute((counts.misses - missed) * work.submit_s)
        if self._prefetcher is not None:
            self._prefetcher.after_fetch(turn.layer, _STREAM, turn.expert_ids)
        if arrivals is None:
            self._compute(turn.expert_ids.shape[-1] * work.expert_s)
            return
        for batch in arrivals:
            self._compute(len(batch) * work.expert_s)
        if counts.stall_s > stalled_s:
            self._compute(work.wake_s)

    def _compute(self, seconds: float) -> None:
        self.compute_s += seconds
        self._reader.compute(seconds)

    def _guess(self, layer: int, x: Any) -> NDArray[np.int32]:
        """Guess for a later layer of this pass: what ``Predict`` is asked."""
        self._compute(self._work.guess_s)
        turns = self._turns
        ahead = self._places[layer] - self._places[turns[self._place].layer]
        place = self._place + ahead
        foretell = cast(Callable[[Pass, int, int], Sequence[int]], self._foretell)
        known = place < len(turns) and turns[place].layer == layer
        return np.array([foretell(turns, place, ahead) if known else ()], np.int32)


_STREAM = np.zeros((1, 1), np.float32)
"""In place of a residual stream: guesses are found by the turn, not by it."""
