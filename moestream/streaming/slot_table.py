"""Who holds which slot, who may stay, who must go.

Owns the states of slots: *kept* (the policy wants the expert to stay), *staged* (read on a guess),
*in use*, or free. Carries a policy's decisions out; starts no reads.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.policies import Policy, PolicyFactory
from moestream.streaming.reader import ABSENT, FAILED, QUEUED, READING, READY, ExpertReader
from moestream.streaming.slots import AnonymousSlots, Slots

NONE = -1


class SlotTable:
    """Slots of one size, shared by the experts of some layers.

    The policy has all slots but ``spare``, which are left for guesses, and for streaming what is
    used once and not kept. Where all experts fit, none are spare and nothing is ever dropped.
    ``make_slots`` makes slots that are someone else's.
    """

    def __init__(
        self,
        reader: ExpertReader,
        addresses: NDArray[np.uint64],
        *,
        slot_bytes: int,
        num_slots: int,
        num_experts: int,
        spare: int,
        make_policy: PolicyFactory,
        make_slots: Callable[[int], Slots] | None = None,
    ) -> None:
        num_keys = len(addresses)
        num_slots = min(max(num_slots, 2), num_experts)
        self.memory: Slots = (
            AnonymousSlots(slot_bytes, num_slots) if make_slots is None else make_slots(num_slots)
        )
        reader.hold(self.memory)
        self._fits = self.memory.num_slots == num_experts
        self._spare_wanted = min(max(spare, 2), self.memory.num_slots)
        self.num_spare = 0 if self._fits else self._spare_wanted
        self._most_staged = self.memory.num_slots if self._fits else self.num_spare
        self.num_kept = self.memory.num_slots - self.num_spare
        self.policy: Policy = make_policy([slot_bytes] * num_keys, self.num_kept * slot_bytes)
        self.kept = bytearray(num_keys)
        self.slot_of = [NONE] * num_keys
        self.staged: dict[int, int] = {}
        """Keys read on a guess, the oldest first, and the turn that each was guessed for."""
        self.wasted = 0
        """Guessed keys that lost their slot unused."""
        self._reader = reader
        self._addresses = addresses
        self._leaving: list[int] = []  # dropped while their read was under way
        self._surplus = 0
        self._retired: list[int] = []  # slots whose memory was given back
        self._lent = 0
        self._token = 0

    def admit(self, keys: Sequence[int], token: int, in_use: Collection[int]) -> None:
        """Tell the policy of a routed set, and drop what it drops but for what is ``in_use``.

        A set bigger than what may be kept is told in parts, so that the policy's idea of what is
        resident never exceeds the slots that there are.
        """
        self._token = token
        most = self.policy.budget_for(keys[0]) // self.memory.slot_bytes
        if not most:
            return
        evicted: list[int] = []
        kept = self.kept
        for start in range(0, len(keys), most):
            missing, out = self.policy.access(keys[start : start + most], token)
            for key in missing:
                kept[key] = 1
            for key in out:
                kept[key] = 0
            evicted += out
        if evicted:
            self.release(key for key in evicted if not kept[key] and key not in in_use)

    def seed(self, rates: Sequence[float]) -> list[int]:
        """Have the policy begin with a profile's rates; return the keys that it keeps."""
        keys = self.policy.seed(rates) if self.num_kept else []
        for key in keys:
            self.kept[key] = 1
        return keys

    def take(self, key: int) -> int | None:
        """Give ``key`` a slot and return its address; None if none is to be had now.

        Guesses give theirs up once they are read.
        """
        return self._assign(key) if self.make_room() else None

    def make_room(self) -> bool:
        """See that a slot is free for a demand, and say whether one is."""
        return self._free_one(None)

    def take_spare(self, key: int, now: int, turn: int) -> int | None:
        """Give ``key``, guessed for ``turn``, a slot that nothing else needs now, or None."""
        if len(self.staged) >= self._most_staged and not self._drop_guess(now):
            return None
        if not self._free_one(now):
            return None
        self.staged[key] = turn
        return self._assign(key)

    def _assign(self, key: int) -> int:
        slot = self.memory.free.pop()
        address = self.memory.slot_address(slot)
        self.slot_of[key] = slot
        self._addresses[key] = self._reader.part_addresses(key, address)
        return address

    def release(self, keys: Iterable[int]) -> None:
        """Free the slots of keys that are not kept; one that is being read is freed later."""
        states, slots = self._reader.states, self.slot_of
        for key in keys:
            if slots[key] == NONE:
                continue
            if states[key] in (READY, FAILED):
                self._reader.forget(key)
            elif states[key] != ABSENT:
                self._leaving.append(key)
                continue
            self._free(slots[key])
            slots[key] = NONE

    def claim(self, keys: Sequence[int]) -> int:
        """Note that these were asked for; return how many of them had been guessed."""
        guessed = 0
        if self.staged:
            for key in keys:
                if self.staged.pop(key, None) is not None:
                    guessed += 1
        if self._leaving:
            self._leaving = [key for key in self._leaving if key not in keys]
        return guessed

    def lend(self, count: int) -> None:
        """Have the policy keep ``count`` experts less, for what is read and soon done with."""
        count = min(count, self.num_kept - 1)
        if self.num_spare and not self._lent and count > 0:
            self._lent = count
            self.num_kept -= count
            self.num_spare += count
            self._most_staged = self.num_spare
            evicted = self.policy.lower(count * self.memory.slot_bytes, self._token)
            for key in evicted:
                self.kept[key] = 0
            self.release(evicted)

    def end_loan(self) -> None:
        """Let the policy keep as many as before."""
        self.num_kept += self._lent
        self.num_spare -= self._lent
        self._most_staged = self.num_spare or self.memory.num_slots
        self.policy.lower(-self._lent * self.memory.slot_bytes, self._token)
        self._lent = 0

    def under_way(self) -> list[int]:
        """Keys that hold slots without being asked for, and are being read."""
        states = self._reader.states
        return [k for k in (*self.staged, *self._leaving) if states[k] in (QUEUED, READING)]

    def shrink(self, count: int) -> int:
        """Use ``count`` slots less from now on, as far as can be; return how many less.

        Their memory goes back as they come free. Where all experts fitted none was spare; from now
        on some are, for what is read and not kept. One expert, and the spare ones, always stay.
        """
        spare = self.num_spare or self._spare_wanted
        total = self.num_kept + self.num_spare
        less = min(count, max(total - spare - 1, 0))
        if less <= 0:
            return 0
        self.num_spare = self._most_staged = spare
        kept, self.num_kept = self.num_kept, total - less - spare
        evicted = self.policy.lower((kept - self.num_kept) * self.memory.slot_bytes, self._token)
        for key in evicted:
            self.kept[key] = 0
        self.release(evicted)
        free = self.memory.free
        spared = [free.pop() for _ in range(min(less, max(len(free) - spare, 0)))]
        self._surplus += less - len(spared)
        for slot in spared:
            self._retire(slot)
        return less

    def grow(self, count: int) -> int:
        """Use up to ``count`` slots again that ``shrink`` took; return how many."""
        more = min(count, self._surplus + len(self._retired))
        if more <= 0:
            return 0
        still_used = min(more, self._surplus)
        self._surplus -= still_used
        for _ in range(more - still_used):
            self.memory.free.append(self._retired.pop())
        kept, self.num_kept = self.num_kept, self.num_kept + more
        if not self._surplus and not self._retired and self._fits:
            self.num_kept, self.num_spare = self.memory.num_slots, 0
            self._most_staged = self.memory.num_slots
        self.policy.lower((kept - self.num_kept) * self.memory.slot_bytes, self._token)
        return more

    def _free(self, slot: int) -> None:
        if self._surplus:
            self._surplus -= 1
            self._retire(slot)
        else:
            self.memory.free.append(slot)

    def _retire(self, slot: int) -> None:
        self.memory.trim(slot)
        self._retired.append(slot)

    def _free_one(self, now: int | None) -> bool:
        """See that a slot is free, of a guess if need be; one that is dropped may be given back."""
        if self.memory.free or self._sweep():
            return True
        while self._drop_guess(now):
            if self.memory.free:
                return True
        return False

    def _sweep(self) -> bool:
        """Free the slots of dropped keys whose read has ended meanwhile."""
        leaving, self._leaving = self._leaving, []
        self.release(leaving)
        return bool(self.memory.free)

    def _drop_guess(self, now: int | None) -> bool:
        """Free the slot of the oldest guess that is read; with ``now``, of one that was wrong."""
        states = self._reader.states
        for key, turn in self.staged.items():
            if states[key] in (READY, FAILED) and (now is None or turn <= now):
                del self.staged[key]
                self.wasted += 1
                self.release((key,))
                return True
        return False
