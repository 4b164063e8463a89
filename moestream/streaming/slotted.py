"""Residency in anonymous memory: experts are read into slots, and the policy says who stays.

Owns what happens in a turn when memory is short: what is handed out first, what waits for a slot,
what gives its slot up. Nothing here can deadlock: whatever holds a slot is kept by the policy,
which leaves at least two, or is done with, or is being read and will be.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.streaming.reader import READY, ExpertReader
from moestream.streaming.residency import Arrivals, Residency, Warmed
from moestream.streaming.slot_table import NONE, SlotTable
from moestream.streaming.statistics import Counts, ResidencyStats
from moestream.streaming.view import IN_MEMORY, KEPT, Marks

FOREVER = 2**63
_ANY_TIME = 2**40
"""Turns ahead of what is read for whenever it is asked for: that it will be is no guess."""
_LAYERS = 2
"""That have room at once in a long pass."""


class SlotResidency(Residency):
    """Experts in anonymous memory: pinned, because nothing but the policy evicts them."""

    pin = "copy"

    def __init__(
        self,
        reader: ExpertReader,
        addresses: NDArray[np.uint64],
        tables: Mapping[int, SlotTable],
        expert_bytes: Mapping[int, int],
        num_experts: int,
        *,
        whole_turns: bool = False,
    ) -> None:
        """``whole_turns`` hands out as many experts at once as there are slots for."""
        super().__init__(reader, addresses, num_experts)
        self._tables = tables  # by layer
        self._all_tables = list({id(table): table for table in tables.values()}.values())
        self._bytes = expert_bytes
        self._whole_turns = whole_turns
        self._held: list[int] = []
        """Keys of the layer that is held that are done with, but for more of a long pass."""
        self._open: tuple[SlotTable, list[int]] | None = None
        """The turn that is going on, and what it holds slots for."""
        self.counts.budget_bytes = sum(table.memory.n_bytes for table in self._all_tables)

    def _fetch(
        self, layer: int, keys: list[int], uses: Sequence[list[int]], counts: Counts
    ) -> Arrivals | None:
        if self._open is not None:  # the last turn was broken off, by an error or Ctrl-C
            self._end_turn(*self._open)
        table, states = self._tables[layer], self.reader.states
        counts.turns += 1
        guessed = table.claim(keys)
        if self._held:
            asked = set(keys)
            self._held = [key for key in self._held if key not in asked]
        slots = table.slot_of
        missing = [key for key in keys if states[key] != READY or slots[key] == NONE]
        # First what was guessed and holds a slot: nobody but this turn can free that.
        missing.sort(key=lambda key: slots[key] == NONE)
        self._missing = missing
        in_use = keys if len(keys) <= 16 else set(keys)
        for used in uses:
            table.admit(used, self.token, in_use)
        late = 0
        if guessed:
            self.counts.useful_bytes += guessed * self._bytes[layer]
            late = sum(slots[key] != NONE for key in missing)
        self._note_missing(counts, len(missing), max(guessed - late, 0), late)
        counts.hits += len(keys) - len(missing)
        if not missing and len(uses) == 1 and all(table.kept[key] for key in keys):
            return None
        counts.demand_bytes += (len(missing) - late) * self._bytes[layer]
        absent = set(missing)
        there = [key for key in keys if key not in absent]
        later = self._demand(table, missing)
        waiting = missing[: len(missing) - len(later)]
        self._open = (table, [*there, *waiting])
        self._drop_late_guesses()
        return self._arrive(layer, there, waiting, later, counts)

    def contents(self, layer: int) -> list[int]:
        """See ``Residency.contents``."""
        base, states, missing = layer * self.num_experts, self.reader.states, set(self._missing)
        keys = range(base, base + self.num_experts)
        return [key - base for key in keys if states[key] == READY and key not in missing]

    def marks(self) -> Marks:
        """See ``Residency.marks``."""
        marks = np.zeros(len(self.addresses), np.uint8)
        marks[np.frombuffer(self.reader.states, np.uint8) == READY] = IN_MEMORY
        for table in self._all_tables:
            marks |= np.frombuffer(table.kept, np.uint8) * np.uint8(KEPT)
        return marks

    def _demand(self, table: SlotTable, missing: list[int]) -> list[int]:
        """Start reading as many as there are slots for; return the others."""
        for place, key in enumerate(missing):
            if table.slot_of[key] == NONE:
                address = table.take(key)
                if address is None and self._held:
                    self._cancel(FOREVER)  # of the next layer, which can wait
                    address = table.take(key)
                while address is None and self._held:
                    self._free_held(1)
                    address = table.take(key)
                if address is None:
                    return missing[place:]
            else:
                address = table.memory.slot_address(table.slot_of[key])
            self.reader.submit(key, address, False, self.turn)
        return []

    def _arrive(
        self, layer: int, done: list[int], waiting: list[int], later: list[int], counts: Counts
    ) -> Arrivals:
        table, base = self._tables[layer], layer * self.num_experts
        held = [*done, *waiting]
        self._open = (table, held)
        while done or waiting or later:
            while waiting and self._whole_turns:
                done = [*done, *self._wait(waiting, counts)]
            if done:
                yield [key - base for key in done]
                self._done_with(table, [key for key in done if not table.kept[key]])
            if later:
                begun, later = later, self._demand(table, later)
                del begun[len(begun) - len(later) :]
                waiting += begun
                held += begun
            if later and not waiting:
                self._make_room(table)
            done = self._wait(waiting, counts) if waiting else []
        self._open = None

    def _end_turn(self, table: SlotTable, held: list[int]) -> None:
        self._done_with(table, [key for key in held if not table.kept[key]])
        self._open = None

    def _done_with(self, table: SlotTable, keys: list[int]) -> None:
        """Free slots of what is not kept, unless more of a long pass wants them."""
        if keys and keys[0] // self.num_experts == self._held_layer:
            self._held += keys
        else:
            table.release(keys)

    def _free_held(self, count: int) -> None:
        """A long pass has not as many slots as it asks experts of a layer: some come again."""
        table, held = self._tables[self._held_layer], self._held[:count]
        del self._held[:count]
        table.release(key for key in held if not table.kept[key])

    def _make_room_for_layers(self) -> None:
        """Room for two layers, as one is computed and the next is read; in half, or for one."""
        for table in self._all_tables:
            one, two = (count * self.num_experts - table.num_spare for count in (1, _LAYERS))
            table.lend(min(two, max(table.memory.num_slots // 2, one)))

    def _read_layer_after(self, layer: int) -> None:
        following = min((other for other in self._tables if other > layer), default=NONE)
        if following != NONE and not self._whole_turns:
            self.speculate(following, range(self.num_experts), _ANY_TIME)

    def let_go(self) -> None:
        """See ``Residency.let_go``."""
        if self._held:
            self._free_held(len(self._held))
        super().let_go()

    def end_long_pass(self) -> None:
        """See ``Residency.end_long_pass``."""
        super().end_long_pass()
        self._cancel(FOREVER)
        for table in self._all_tables:
            table.end_loan()

    def _make_room(self, table: SlotTable) -> None:
        """All slots are taken by guesses under way: wait until one can be had."""
        self._cancel(FOREVER)
        while True:
            under_way = table.under_way()  # asked first: one may end before there is room
            if table.make_room():
                return
            if not under_way:
                raise RuntimeError("no slot can be had, though none is in use: this is a bug")
            self.reader.wait_done(under_way)

    def _drop_late_guesses(self) -> None:
        """Take back guesses for turns that have come; those that were right are demand by now."""
        if any(table.staged for table in self._all_tables):
            self._cancel(self.turn + 1)

    def _cancel(self, turn: int) -> None:
        for key in self.reader.cancel_before(turn):
            layer = key // self.num_experts
            self._tables[layer].staged.pop(key, None)
            self._tables[layer].release((key,))
            self.counts.speculative_bytes -= self._bytes[layer]

    def warm(self, rates: Sequence[float], progress: Warmed | None = None) -> None:
        """See ``Residency.warm``."""
        started, warming, n = time.perf_counter(), self.counts.warming, self.num_experts
        keys: list[int] = []
        for table in self._all_tables:
            own = [self._tables.get(layer) is table for layer in range(len(rates) // n)]
            keys += table.seed([r if own[key // n] else 0.0 for key, r in enumerate(rates)])
        self._read_in_order(
            keys, self._begin_warming, lambda key: None, progress or (lambda done, total: None)
        )
        warming.experts = len(keys)
        warming.bytes = warming.read_bytes = sum(self._bytes[key // n] for key in keys)
        warming.elapsed_s = time.perf_counter() - started

    def _begin_warming(self, key: int) -> None:
        address = self._tables[key // self.num_experts].take(key)
        if address is None:
            raise RuntimeError("the policy keeps more experts than there are slots: a bug")
        self.reader.submit(key, address, False, self.turn)

    def may_lack(self, layer: int, expert_ids: Sequence[int]) -> bool:
        """See ``Residency.may_lack``."""
        base, slots = layer * self.num_experts, self._tables[layer].slot_of
        return NONE in [slots[base + expert] for expert in expert_ids]

    def speculate(self, layer: int, expert_ids: Sequence[int], ahead: int) -> int:
        """See ``Residency.speculate``."""
        table, base = self._tables[layer], layer * self.num_experts
        slots = table.slot_of
        absent = [base + expert for expert in expert_ids if slots[base + expert] == NONE]
        if not absent:
            return 0
        turn, begun = self.turn + ahead, 0
        for key in absent:
            address = table.take_spare(key, self.turn, turn)
            if address is None:
                break
            self.reader.submit(key, address, True, turn)
            begun += 1
            if self.guessed is not None and ahead < _ANY_TIME:
                self.guessed.append(key)
        self.counts.speculative_bytes += begun * self._bytes[layer]
        return begun

    def give_back(self, n_bytes: int) -> int:
        """See ``Residency.give_back``. Slots that are someone else's stay as they are."""
        if self._whole_turns:
            return 0
        total = sum(table.memory.n_bytes for table in self._all_tables)
        given = 0
        for table in self._all_tables:
            given += self._shrink(table, n_bytes * table.memory.n_bytes // total)
        for table in self._all_tables:  # what one could not give, another may
            given += self._shrink(table, n_bytes - given)
        return given

    def take_back(self, n_bytes: int) -> int:
        """See ``Residency.take_back``."""
        taken = 0
        for table in self._all_tables:
            slot_bytes = table.memory.slot_bytes
            taken += table.grow((n_bytes - taken) // slot_bytes) * slot_bytes
        return taken

    def _shrink(self, table: SlotTable, n_bytes: int) -> int:
        slot_bytes = table.memory.slot_bytes
        return table.shrink(-(-n_bytes // slot_bytes)) * slot_bytes

    @property
    def pinned_bytes(self) -> int:
        """See ``Residency.pinned_bytes``."""
        return sum(
            table.memory.slot_bytes * (len(table.slot_of) - table.slot_of.count(NONE))
            for table in self._all_tables
        )

    def stats(self) -> ResidencyStats:
        """See ``Residency.stats``."""
        counts = super().stats()
        counts.resident_bytes = counts.pinned_bytes = self.pinned_bytes
        unused = counts.speculative_bytes - counts.useful_bytes
        waiting = sum(
            self._bytes[key // self.num_experts]
            for table in self._all_tables
            for key in table.staged
        )
        counts.wasted_bytes = max(unused - waiting, 0)
        return counts

    def close(self) -> None:
        """See ``Residency.close``."""
        super().close()
        self._tables, self._all_tables = {}, []
