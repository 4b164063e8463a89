"""Residency of experts' heads: what a policy keeps is a head, and every use reads the tail.

Owns how the two parts come together. Heads are kept as whole experts are by ``SlotResidency``;
tails go through a few slots of their own, which hold what is in use or was guessed, and are read
after the missing heads. An expert is handed out once all its bytes are there, so that what is
computed, and in which order it is added up, is the same as ever; meanwhile those that are whole
are computed.

Of such an expert a *hit* means that its head was in memory.

Source: MoEpic, arXiv 2509.08342.
"""

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.streaming.layout import FIELDS
from moestream.streaming.reader import READY, ExpertReader
from moestream.streaming.residency import Arrivals
from moestream.streaming.slot_table import NONE, SlotTable
from moestream.streaming.slotted import SlotResidency
from moestream.streaming.split.cut import SplitLayout
from moestream.streaming.statistics import Counts
from moestream.streaming.view import Marks


class SplitResidency(SlotResidency):
    """Heads in slots that a policy fills, tails in others that nothing stays in.

    Layers number L; a tail's layer is its head's and L, and its key is its head's and ``_shift``.
    ``addresses`` (2 K, 3) has tails in its second half, whose tables keep nothing. Layers whose
    experts are kept whole have no such table.
    """

    def __init__(
        self,
        reader: ExpertReader,
        layout: SplitLayout,
        addresses: NDArray[np.uint64],
        tables: Mapping[int, SlotTable],
        num_experts: int,
    ) -> None:
        needed = layout.ranges[:, :, FIELDS.index("needed")].sum(axis=1)
        part_bytes = {layer: int(needed[layer * num_experts]) for layer in layout.slot_bytes}
        super().__init__(reader, addresses, tables, part_bytes, num_experts)
        self._shift = len(addresses) // 2
        self._num_layers = self._shift // num_experts
        self._first = layout.first.tolist()
        self._copied = layout.copied.tolist()
        self._cuts = layout.slot_bytes
        self._unread: list[int] = []
        """Tails of this turn that wait for a slot."""

    def _fetch(
        self, layer: int, keys: list[int], uses: Sequence[list[int]], counts: Counts
    ) -> Arrivals | None:
        arrivals = super()._fetch(layer, keys, uses, counts)
        tails = self._tails(keys[0])
        if tails is None:
            return arrivals
        if arrivals is None:  # all heads are there, and stay
            arrivals = self._arrive(layer, keys, [], [], counts)
            self._open = (self._tables[layer], keys)
        self._unread = self._begin_tails(tails, self._open[1] if self._open else [], counts)
        return arrivals

    def _begin_tails(self, tails: SlotTable, keys: list[int], counts: Counts) -> list[int]:
        """Start reading the tails of keys whose heads have slots; return those that must wait.

        Only of such keys: a tail whose head waits for a slot could keep it from ever having one.
        """
        tail_keys = [key + self._shift for key in keys]
        guessed = tails.claim(tail_keys)
        states, slots = self.reader.states, tails.slot_of
        there = sum(states[key] == READY for key in tail_keys)
        late = sum(slots[key] != NONE for key in tail_keys) - there
        self._note_wanted(len(keys), there, late)
        if keys:
            n_bytes = self._bytes[keys[0] // self.num_experts + self._num_layers]
            self.counts.useful_bytes += guessed * n_bytes
            counts.demand_bytes += (len(keys) - guessed) * n_bytes
        tail_keys.sort(key=lambda key: tails.slot_of[key] == NONE)  # those that have one need none
        return self._demand(tails, tail_keys)

    def _arrive(
        self, layer: int, done: list[int], waiting: list[int], later: list[int], counts: Counts
    ) -> Arrivals:
        table, base, shift = self._tables[layer], layer * self.num_experts, self._shift
        tails = self._tails(base)
        if tails is None:
            yield from super()._arrive(layer, done, waiting, later, counts)
            return
        held = [*done, *waiting]
        self._open = (table, held)
        parted = list(held)  # not whole yet
        while parted or later:
            whole = self._whole(parted)
            if whole:
                parted = [key for key in parted if key not in whole]
                for key in whole:
                    self._join(key, table, tails)
                yield [key - base for key in whole]
                table.release(key for key in whole if not table.kept[key])
                tails.release(key + shift for key in whole)
            left = self._demand(table, later)
            begun, later = later[: len(later) - len(left)], left
            held += begun
            parted += begun
            self._unread = self._demand(tails, self._unread)
            self._unread += self._begin_tails(tails, begun, counts)
            if not whole:
                self._wait_for_more(table, tails, parted, counts)
        self._open = None

    def _wait_for_more(
        self, table: SlotTable, tails: SlotTable, parted: list[int], counts: Counts
    ) -> None:
        """Wait until a part arrives, or until the next one can have a slot."""
        unread, states = set(self._unread), self.reader.states
        keys = [*parted, *(key + self._shift for key in parted)]
        under_way = [key for key in keys if states[key] != READY and key not in unread]
        if under_way:
            self._wait(under_way, counts)
        elif not self._whole(parted):  # one may have become so meanwhile
            self._make_room(tails if unread else table)

    def _whole(self, keys: list[int]) -> list[int]:
        """Those of which both parts are there."""
        states, shift = self.reader.states, self._shift
        return [key for key in keys if states[key] == states[key + shift] == READY]

    def _join(self, key: int, table: SlotTable, tails: SlotTable) -> None:
        """Bring an expert's parts, both there, to where its addresses say that they are."""
        first, copied, tail = self._first[key], self._copied[key], key + self._shift
        if copied:
            cut = self._cuts[key // self.num_experts]
            end = table.memory.slot_address(table.slot_of[key]) + cut
            ctypes.memmove(int(self.addresses[tail, first]), end - copied, copied)
        self.addresses[key, first:] = self.addresses[tail, first:]

    def _end_turn(self, table: SlotTable, held: list[int]) -> None:
        super()._end_turn(table, held)
        tails = self._tails(held[0]) if held else None
        if tails is not None:
            tails.release(key + self._shift for key in held)

    def marks(self) -> Marks:
        """See ``Residency.marks``: an expert's are those of its head."""
        return super().marks()[: self._shift]

    def _tails(self, key: int) -> SlotTable | None:
        return self._tables.get(key // self.num_experts + self._num_layers)

    def may_lack(self, layer: int, expert_ids: Sequence[int]) -> bool:
        """See ``Residency.may_lack``: tails always are, where there are any."""
        return layer + self._num_layers in self._tables or super().may_lack(layer, expert_ids)

    def speculate(self, layer: int, expert_ids: Sequence[int], ahead: int) -> int:
        """See ``Residency.speculate``: missing heads first, then the tails."""
        begun = super().speculate(layer, expert_ids, ahead)
        if layer + self._num_layers in self._tables:
            begun += super().speculate(layer + self._num_layers, expert_ids, ahead)
        return begun
