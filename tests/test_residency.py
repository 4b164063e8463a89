"""Residency with a fake reader: no disk, no threads, no sleeping; any order of arrival."""

import random
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from moestream.policies import POLICIES, Decay, Policy
from moestream.policies.layered import by_layer
from moestream.policies.shares import split_budget
from moestream.streaming.reader import ABSENT, FAILED, QUEUED, READING, READY
from moestream.streaming.slot_table import NONE, SlotTable
from moestream.streaming.slotted import SlotResidency

LAYERS, EXPERTS, K = 4, 8, 2
SLOT = 4096


class FakeReader:
    """Reads a key by writing its number into a dictionary of memory, whenever it likes."""

    method = "fake"

    def __init__(self, num_keys: int, seed: int = 0) -> None:
        self.states = bytearray(num_keys)
        self.memory: dict[int, int] = {}
        self.jobs: dict[int, tuple[int, bool, int]] = {}  # key: address, speculative, generation
        self.demanded: list[int] = []
        self.speculated: list[int] = []
        self.fail: set[int] = set()
        self.random = random.Random(seed)

    def hold(self, memory: object) -> None:
        pass

    def part_addresses(self, key: int, slot_address: int) -> np.ndarray:
        return np.full(3, slot_address)

    def file_order(self, keys: list[int]) -> list[int]:
        return sorted(keys)

    def submit(self, key: int, address: int, speculative: bool, generation: int) -> None:
        (self.speculated if speculative else self.demanded).append(key)
        if self.states[key] in (ABSENT, FAILED):
            self.states[key] = QUEUED
            self.jobs[key] = (address, speculative, generation)
        elif self.states[key] != READY and not speculative:
            self.jobs[key] = (*self.jobs[key][:1], False, generation)

    def cancel_before(self, generation: int) -> list[int]:
        gone = [
            key
            for key, (_, speculative, turn) in self.jobs.items()
            if speculative and turn < generation and self.states[key] == QUEUED
        ]
        for key in gone:
            del self.jobs[key]
            self.states[key] = ABSENT
        return gone

    def forget(self, key: int) -> None:
        assert self.states[key] not in (QUEUED, READING)
        self.states[key] = ABSENT

    def finish(self, key: int) -> None:
        address, _, _ = self.jobs.pop(key)
        if key in self.fail:
            self.states[key] = FAILED
            return
        self.memory[address] = key
        self.states[key] = READY

    def begin_some(self) -> None:
        """Let the disk make a start on, or finish, some of what is queued."""
        for key in list(self.jobs):
            fate = self.random.random()
            if fate < 0.3:
                self.finish(key)
            elif fate < 0.6:
                self.states[key] = READING

    def wait_any(self, keys: list[int]) -> list[int]:
        self.wait_done(keys)
        if self.fail & {key for key in keys if self.states[key] == FAILED}:
            raise OSError("injected")
        return [key for key in keys if self.states[key] == READY]

    def wait_done(self, keys: list[int]) -> None:
        assert keys, "waited for nothing"
        assert all(self.states[key] != ABSENT for key in keys), "waited for what is not read"
        if not any(self.states[key] in (READY, FAILED) for key in keys):
            self.finish(self.random.choice([key for key in keys if key in self.jobs]))

    def counters(self) -> dict[str, int]:
        names = ("demand_bytes", "speculative_bytes", "busy_ns", "deepest", "cancelled")
        return dict.fromkeys(names, 0)


def make(slots: int, *, policy=Decay, spare: int = 2, seed: int = 0):
    num_keys = LAYERS * EXPERTS
    reader = FakeReader(num_keys, seed)
    addresses = np.zeros((num_keys, 3), np.uint64)
    table = SlotTable(
        reader,
        addresses,
        slot_bytes=SLOT,
        num_slots=slots,
        num_experts=num_keys,
        spare=spare,
        make_policy=policy,
    )
    layers = range(LAYERS)
    residency = SlotResidency(
        reader, addresses, dict.fromkeys(layers, table), dict.fromkeys(layers, SLOT), EXPERTS
    )
    return residency, table, reader


def ids(*rows) -> np.ndarray:
    return np.array(rows, np.int32)


def use(residency, layer: int, expert_ids: np.ndarray, *, busy: bool = False) -> list[int]:
    """Run one turn as a backend would, and look whether each expert is where it should be.

    A ``busy`` disk reads on while nobody looks.
    """
    seen: list[int] = []
    arrivals = residency.fetch(layer, expert_ids)
    if busy:
        residency.reader.begin_some()
    for batch in [np.unique(expert_ids).tolist()] if arrivals is None else arrivals:
        for expert in batch:
            key = layer * EXPERTS + expert
            address = int(residency.addresses[key, 0])
            assert residency.reader.memory[address] == key, "another expert's bytes"
            seen.append(expert)
        if busy:
            residency.reader.begin_some()
    return seen


def check_slots(table: SlotTable) -> None:
    held = [slot for slot in table.slot_of if slot != NONE]
    assert len(held) == len(set(held)), "two experts in one slot"
    assert sorted(held + table.memory.free) == list(range(table.memory.num_slots)), "a slot leaked"


def break_off(arrivals: Iterator[object], chance: random.Random) -> None:
    """Take some of what arrives, and leave the rest."""
    with suppress(OSError):
        for _ in range(chance.randrange(3)):
            next(arrivals, None)


def random_turns(residency, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Layers and what they route to, of prompts and single tokens, with guesses before half."""
    chance = random.Random(seed)
    for step in range(60):
        for layer in range(LAYERS):
            tokens = 1 if step % 10 else chance.choice([2, 7, 40])
            rows = ids(*(chance.sample(range(EXPERTS), K) for _ in range(tokens)))
            if chance.random() < 0.5:
                residency.speculate((layer + 1) % LAYERS, chance.sample(range(EXPERTS), K), 1)
            residency.reader.begin_some()
            yield layer, rows


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("slots", [0, 2, 3, 5, 11, 20, 31, 32, 99])
def test_every_expert_is_handed_out_once_and_is_what_it_should_be(name: str, slots: int) -> None:
    residency, table, _ = make(slots, policy=POLICIES[name], spare=3, seed=slots)
    for layer, rows in random_turns(residency, slots):
        used = use(residency, layer, rows, busy=True)
        assert sorted(used) == sorted(set(rows.ravel().tolist()))
        check_slots(table)
    counts = residency.stats()
    assert counts.decode.hits + counts.decode.misses == 54 * LAYERS * K


@pytest.mark.parametrize("kind", ["uniform", "shallow", "adaptive"])
@pytest.mark.parametrize("slots", [2, 5, 11, 20, 31])
def test_layers_with_shares_of_their_own_leak_no_slot(kind: str, slots: int) -> None:
    def policy(sizes: list[int], budget_bytes: int) -> Policy:
        shares = split_budget(kind, budget_bytes, dict.fromkeys(range(LAYERS), EXPERTS * SLOT))
        return by_layer(kind, Decay, shares, EXPERTS, K)(sizes, budget_bytes)

    residency, table, reader = make(slots, policy=policy, spare=3, seed=slots)
    chance = random.Random(slots)
    for step in range(120):
        if step == 90:
            given = residency.give_back(2 * SLOT)
            slots -= given // SLOT
        for layer in range(LAYERS):
            tokens = 1 if step % 10 else chance.choice([2, 7, 40])
            rows = ids(*(chance.sample(range(4 if layer else EXPERTS), K) for _ in range(tokens)))
            if chance.random() < 0.5:
                residency.speculate((layer + 1) % LAYERS, chance.sample(range(EXPERTS), K), 1)
            reader.begin_some()
            used = use(residency, layer, rows, busy=True)
            assert sorted(used) == sorted(set(rows.ravel().tolist()))
            held = [slot for slot in table.slot_of if slot != NONE]
            assert len(held) == len(set(held)), "two experts in one slot"
            assert len(held) + len(table.memory.free) == slots, "a slot leaked"
            loose = [key for key, slot in enumerate(table.slot_of) if slot != NONE]
            loose = [key for key in loose if not table.kept[key] and key not in table.staged]
            assert set(loose) <= set(table._leaving), "a slot is held for nobody"


@pytest.mark.parametrize("slots", [2, 5, 12])
@pytest.mark.parametrize("seed", range(8))
def test_a_turn_that_is_broken_off_leaks_no_slot(slots: int, seed: int) -> None:
    residency, table, reader = make(slots, seed=seed)
    chance = random.Random(seed)
    for _ in range(80):
        layer = chance.randrange(LAYERS)
        rows = ids(*(chance.sample(range(EXPERTS), K) for _ in range(chance.choice([1, 1, 6]))))
        reader.fail = {chance.randrange(LAYERS * EXPERTS)} if chance.random() < 0.3 else set()
        arrivals = residency.fetch(layer, rows) or iter(())
        break_off(arrivals, chance)
        del arrivals
        reader.begin_some()
        check_slots(table)
    reader.fail = set()
    assert sorted(use(residency, 0, ids([1, 2]))) == [1, 2]


def test_what_is_there_is_handed_out_before_what_is_missing() -> None:
    residency, _, reader = make(20)
    use(residency, 0, ids([3, 4]))
    arrivals = residency.fetch(0, ids([5, 4]))
    assert reader.demanded[-1] == 5, "the read did not begin with the turn"
    assert list(next(arrivals)) == [4]
    assert [list(batch) for batch in arrivals] == [[5]]


def test_hits_are_counted_in_decode_alone() -> None:
    residency, _, _ = make(99)
    use(residency, 0, ids([0, 1], [2, 3]))
    use(residency, 0, ids([0, 5]))
    decode, prefill = residency.stats().decode, residency.stats().prefill
    assert (decode.hits, decode.misses) == (1, 1)
    assert (prefill.hits, prefill.misses, prefill.demand_bytes) == (0, 4, 4 * SLOT)


def test_only_the_tail_of_a_prompt_counts() -> None:
    residency, table, _ = make(6, spare=2)
    early = [[0, 1]] * 200
    late = [[2, 3]] * 30
    use(residency, 0, ids(*early, *late))
    kept = [key for key in range(EXPERTS) if table.kept[key]]
    assert kept == [2, 3]


def test_a_prompt_reads_the_experts_of_most_tokens_first() -> None:
    residency, _, reader = make(20)
    assert sorted(use(residency, 0, ids([5, 4], [5, 1], [4, 5], [3, 1]))) == [1, 3, 4, 5]
    assert reader.demanded == [5, 1, 4, 3]


def test_the_hot_stay_through_a_prefill_of_everything() -> None:
    residency, _, reader = make(8, spare=2)
    for _ in range(30):
        use(residency, 0, ids([0, 1]))
    everything = ids(*([i % EXPERTS, (i + 1) % EXPERTS] for i in range(8)))
    for layer in range(LAYERS):
        use(residency, layer, everything)
    reader.demanded.clear()
    use(residency, 0, ids([0, 1]))
    assert reader.demanded == []


def test_a_right_guess_is_a_hit_and_is_useful() -> None:
    residency, _, reader = make(20, spare=4)
    use(residency, 0, ids([0, 1]))
    assert residency.speculate(1, [2, 3], 1) == 2
    for key in list(reader.jobs):
        reader.finish(key)
    reader.demanded.clear()
    assert use(residency, 1, ids([2, 3])) == [2, 3]
    stats = residency.stats()
    assert reader.demanded == []
    assert (stats.decode.hits, stats.decode.foreseen) == (2, 2)
    assert (stats.decode.hit_rate, stats.decode.cached_rate) == (0.5, 0)
    assert (stats.useful_bytes, stats.wasted_bytes) == (2 * SLOT, 0)


def test_a_guess_under_way_is_promoted_not_read_twice() -> None:
    residency, _, reader = make(20, spare=4)
    use(residency, 0, ids([0, 1]))
    residency.speculate(1, [2], 1)
    assert use(residency, 1, ids([2, 3])) in ([2, 3], [3, 2])
    assert residency.stats().decode.late == 1
    assert reader.demanded.count(EXPERTS + 2) == 1


def test_a_wait_for_a_late_guess_is_not_what_a_miss_costs() -> None:
    residency, _, reader = make(20, spare=4)
    use(residency, 0, ids([0, 1]))
    alone_s = residency.waited_s
    assert (residency.wanted, residency.waited) == (2, 2)
    assert alone_s == residency.counts.decode.stall_s > 0
    residency.speculate(1, [2, 3], 1)
    for key in list(reader.jobs):
        reader.finish(key)
    use(residency, 1, ids([2, 4]))  # one was foreseen, one missed
    assert (residency.wanted, residency.waited) == (4, 3)
    missed_s = residency.waited_s
    residency.speculate(2, [2], 1)
    use(residency, 2, ids([2, 3]))  # one is late
    assert (residency.wanted, residency.waited, residency.waited_s) == (6, 3, missed_s)
    assert residency.counts.decode.stall_s > missed_s > alone_s


def test_a_guess_is_asked_for_only_where_something_may_be_missing() -> None:
    residency, _, _ = make(20, spare=4)
    assert residency.may_lack(0, [0, 1])
    use(residency, 0, ids([0, 1]))
    assert not residency.may_lack(0, [0, 1])
    assert residency.may_lack(0, [1, 2])
    assert not residency.may_lack(0, [])


def test_guesses_for_a_turn_that_has_come_are_taken_back() -> None:
    residency, table, reader = make(20, spare=4)
    use(residency, 0, ids([0, 1]))
    residency.speculate(1, [2, 3], 1)
    use(residency, 1, ids([4, 5]))
    assert not reader.jobs
    assert residency.stats().speculative_bytes == 0
    check_slots(table)


def test_a_guess_may_end_while_room_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    residency, table, reader = make(2, spare=2)
    assert residency.speculate(1, [2, 3], 1) == 2
    reader.states[EXPERTS + 2] = reader.states[EXPERTS + 3] = READING  # too late to take back
    look = table.under_way

    def look_too_late() -> list[int]:
        for key in list(reader.jobs):
            reader.finish(key)
        return look()

    monkeypatch.setattr(table, "under_way", look_too_late)
    assert use(residency, 1, ids([4, 5])) in ([4, 5], [5, 4])
    check_slots(table)


def test_guesses_that_were_right_and_hold_all_slots_are_used_first() -> None:
    residency, table, reader = make(2, spare=2)
    assert residency.speculate(1, [3, 4], 1) == 2
    reader.states[EXPERTS + 3] = reader.states[EXPERTS + 4] = READING
    assert sorted(use(residency, 1, ids([2, 3, 4]))) == [2, 3, 4]
    check_slots(table)


def test_guesses_for_later_turns_are_left() -> None:
    residency, _, reader = make(20, spare=4)
    use(residency, 0, ids([0, 1]))
    residency.speculate(2, [2, 3], 2)
    use(residency, 1, ids([4, 5]))
    assert sorted(reader.jobs) == [2 * EXPERTS + 2, 2 * EXPERTS + 3]


def test_wrong_guesses_that_were_read_are_wasted() -> None:
    residency, _, reader = make(12, spare=4)
    use(residency, 0, ids([0, 1]))
    residency.speculate(1, [2, 3], 1)
    for key in list(reader.jobs):
        reader.finish(key)
    use(residency, 1, ids([4, 5]))
    for turn in range(6):  # others need their slots
        residency.speculate(2, [turn, turn + 1], 1)
        for key in list(reader.jobs):
            reader.finish(key)
        use(residency, 1, ids([4, 5]))
    assert residency.stats().wasted_bytes >= 2 * SLOT


def test_what_is_resident_is_not_guessed_again() -> None:
    residency, _, reader = make(20, spare=4)
    use(residency, 1, ids([2, 3]))
    use(residency, 0, ids([0, 1]))
    assert residency.speculate(1, [2, 3], 1) == 0
    assert reader.speculated == []


def test_giving_back_memory_drops_the_coldest_and_stays_within() -> None:
    residency, table, _ = make(20, spare=2)
    for _ in range(3):
        for layer in range(LAYERS):
            use(residency, layer, ids([0, 1], [2, 3]))
    given = residency.give_back(10 * SLOT)
    assert given == 10 * SLOT
    for layer in range(LAYERS):
        assert sorted(use(residency, layer, ids([4, 5]))) == [4, 5]
    use(residency, 0, ids([4, 5]))
    held = sum(slot != NONE for slot in table.slot_of)
    assert held <= 10
    assert len(table.memory.free) + held == 10


def test_what_was_given_back_is_used_again() -> None:
    every = LAYERS * EXPERTS
    residency, table, _ = make(every)  # none spare, as all experts fit
    rows = ids(*([n, (n + 1) % EXPERTS] for n in range(EXPERTS)))
    for _ in range(2):
        for layer in range(LAYERS):
            use(residency, layer, rows)
    assert residency.give_back(every // 2 * SLOT) == every // 2 * SLOT
    assert residency.take_back(every * SLOT) == every // 2 * SLOT
    assert residency.take_back(every * SLOT) == 0
    assert (table.num_kept, table.num_spare) == (every, 0)
    for _ in range(8):
        for layer in range(LAYERS):
            use(residency, layer, rows)
    before = residency.stats().prefill.misses
    for layer in range(LAYERS):
        use(residency, layer, rows)
    assert residency.stats().prefill.misses == before


def test_a_workload_that_shifts_is_followed() -> None:
    residency, _, _ = make(LAYERS * K + 4, spare=2)
    for hot in ([0, 1], [6, 7]):
        for _ in range(40):
            for layer in range(LAYERS):
                use(residency, layer, ids(hot))
        before = residency.stats().decode.misses
        for layer in range(LAYERS):
            use(residency, layer, ids(hot))
        assert residency.stats().decode.misses == before


def rates_of(**keys: float) -> list[float]:
    rates = [0.0] * (LAYERS * EXPERTS)
    for name, rate in keys.items():
        rates[int(name[1:])] = rate
    return rates


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("slots", [0, 2, 3, 5, 11, 32])
def test_a_warmed_cache_serves_as_an_empty_one_does(name: str, slots: int) -> None:
    residency, table, reader = make(slots, policy=POLICIES[name], spare=3, seed=slots)
    chance = random.Random(slots)
    told: list[tuple[int, int]] = []
    residency.warm(
        [chance.random() for _ in range(LAYERS * EXPERTS)],
        lambda done, total: told.append((done, total)),
    )
    check_slots(table)
    assert residency.stats().warming.experts == table.num_kept
    assert sum(table.kept) == len(reader.demanded) == table.num_kept
    assert not told or told[-1] == (table.num_kept, table.num_kept)
    for _ in range(30):
        for layer in range(LAYERS):
            rows = ids(*(chance.sample(range(EXPERTS), K) for _ in range(chance.choice([1, 5]))))
            assert sorted(use(residency, layer, rows)) == sorted(set(rows.ravel().tolist()))
            check_slots(table)


def test_the_hottest_of_a_profile_are_read_in_the_order_of_the_file() -> None:
    residency, _, reader = make(5, spare=2)
    residency.warm(rates_of(_9=0.5, _2=0.4, _20=0.9, _30=0.1))
    assert reader.demanded == [2, 9, 20]
    assert use(residency, 1, ids([1])) == [1]
    assert residency.stats().decode.hits == 1


def test_what_a_profile_never_used_is_not_read() -> None:
    residency, table, reader = make(99)
    residency.warm(rates_of(_3=0.5, _4=1e-9))
    assert reader.demanded == [3, 4]
    check_slots(table)


def test_a_session_moves_on_from_a_profile_of_something_else() -> None:
    residency, _, _ = make(LAYERS * K + 2, spare=2)
    profile = [0.9 if key % EXPERTS in (0, 1) else 0.0 for key in range(LAYERS * EXPERTS)]
    residency.warm(profile)
    for _ in range(10):
        for layer in range(LAYERS):
            use(residency, layer, ids([6, 7]))
    before = residency.stats().decode.misses
    for layer in range(LAYERS):
        use(residency, layer, ids([6, 7]))
    assert residency.stats().decode.misses == before


def test_experts_of_two_sizes_are_warmed_each_in_their_slots() -> None:
    num_keys = LAYERS * EXPERTS
    reader, addresses = FakeReader(num_keys), np.zeros((num_keys, 3), np.uint64)
    tables = [
        SlotTable(
            reader,
            addresses,
            slot_bytes=size,
            num_slots=6,
            num_experts=num_keys // 2,
            spare=2,
            make_policy=Decay,
        )
        for size in (SLOT, 2 * SLOT)
    ]
    layers = dict(zip(range(LAYERS), [tables[0], tables[1]] * 2, strict=True))
    sizes = dict.fromkeys(range(LAYERS), SLOT)
    residency = SlotResidency(reader, addresses, layers, sizes, EXPERTS)
    residency.warm([0.5] * num_keys)
    for place, table in enumerate(tables):
        kept = [key for key in range(num_keys) if table.kept[key]]
        assert len(kept) == 4
        assert {key // EXPERTS % 2 for key in kept} == {place}
        check_slots(table)


@pytest.mark.parametrize("slots", [7, 9, 12, 18])
def test_a_long_pass_loses_no_more_than_it_is_short_of(slots: int) -> None:
    residency, _, reader = make(slots)
    every = ids(*([n, n + 1] for n in range(0, EXPERTS, 2)))
    for chunk in range(6):  # of a long pass, all of which want all experts of the layer
        arrivals = residency.fetch(0, every, more=chunk < 5) or [range(EXPERTS)]
        assert sorted(n for some in arrivals for n in some) == list(range(EXPERTS))
        reader.begin_some()
    short = max(EXPERTS + 1 - slots, 0)  # one slot is for what the policy keeps
    assert len(reader.demanded) <= EXPERTS + 5 * (short + 1)
    residency.end_long_pass()


def test_a_long_pass_has_its_first_layer_read_while_it_attends() -> None:
    residency, table, reader = make(2 * EXPERTS + 1)
    residency.begin_long_pass()
    assert reader.speculated == list(range(EXPERTS))
    for key in list(reader.jobs):
        reader.finish(key)
    use(residency, 0, ids(*([n, n + 1] for n in range(0, EXPERTS, 2))))
    assert reader.demanded == []
    residency.end_long_pass()
    check_slots(table)
