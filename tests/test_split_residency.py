"""Heads that are kept and tails that are read at each use, with a fake reader: no disk, no threads.

That the bytes come together as they are in the file is for ``test_streaming`` to see.
"""

import random

import numpy as np
import pytest
from test_residency import (
    EXPERTS,
    LAYERS,
    SLOT,
    FakeReader,
    K,
    break_off,
    check_slots,
    ids,
    random_turns,
)

from moestream.policies import LRU, Decay
from moestream.streaming.slot_table import SlotTable
from moestream.streaming.split.cut import SplitLayout
from moestream.streaming.split.parts import SplitResidency

KEYS = LAYERS * EXPERTS
WHOLE = 3
"""The layer whose experts are not split."""


def make(heads: int, tails: int, *, seed: int = 0):
    reader = FakeReader(2 * KEYS, seed)
    addresses = np.zeros((2 * KEYS, 3), np.uint64)
    slot_bytes = {layer: SLOT for layer in range(2 * LAYERS) if layer != LAYERS + WHOLE}
    layout = SplitLayout(
        np.full((2 * KEYS, 1, 5), SLOT, np.int64),
        np.zeros((2 * KEYS, 3), np.int64),
        slot_bytes,
        first=np.where(np.arange(KEYS) // EXPERTS == WHOLE, 3, 1),
        copied=np.zeros(KEYS, np.int64),
    )
    shared = {"slot_bytes": SLOT, "make_policy": Decay}
    head = SlotTable(
        reader, addresses[:KEYS], num_slots=heads, num_experts=KEYS, spare=3, **shared
    )  # fmt: skip
    tail = SlotTable(
        reader,
        addresses,
        slot_bytes=SLOT,
        num_slots=tails,
        num_experts=99,
        spare=tails,
        make_policy=LRU,
    )
    tables = {layer: head if layer < LAYERS else tail for layer in slot_bytes}
    return SplitResidency(reader, layout, addresses, tables, EXPERTS), head, tail, reader


def use(residency, layer: int, expert_ids: np.ndarray) -> list[int]:
    """Run one turn, and look whether both parts of each expert are where they should be."""
    seen: list[int] = []
    arrivals = residency.fetch(layer, expert_ids)
    residency.reader.begin_some()
    for batch in [np.unique(expert_ids).tolist()] if arrivals is None else arrivals:
        for expert in batch:
            key = layer * EXPERTS + expert
            first, last = (int(residency.addresses[key, part]) for part in (0, 2))
            assert residency.reader.memory[first] == key, "another expert's head"
            assert residency.reader.memory[last] == key + (0 if layer == WHOLE else KEYS)
            seen.append(expert)
        residency.reader.begin_some()
    return seen


@pytest.mark.parametrize("heads", [2, 5, 11, 31, 99])
@pytest.mark.parametrize("tails", [2, 3, 8])
def test_every_expert_is_handed_out_once_and_no_slot_leaks(heads: int, tails: int) -> None:
    residency, head, tail, _ = make(heads, tails, seed=heads + tails)
    for layer, rows in random_turns(residency, heads):
        assert sorted(use(residency, layer, rows)) == sorted(set(rows.ravel().tolist()))
        check_slots(head)
        check_slots(tail)
        assert not any(tail.kept)


@pytest.mark.parametrize("heads", [2, 5, 12])
def test_a_turn_that_is_broken_off_leaks_no_slot(heads: int) -> None:
    residency, head, tail, reader = make(heads, 3, seed=heads)
    chance = random.Random(heads)
    for _ in range(120):
        rows = ids(*(chance.sample(range(EXPERTS), K) for _ in range(chance.choice([1, 1, 6]))))
        reader.fail = {chance.randrange(2 * KEYS)} if chance.random() < 0.4 else set()
        arrivals = residency.fetch(chance.randrange(LAYERS), rows) or iter(())
        break_off(arrivals, chance)
        del arrivals
        reader.begin_some()
        check_slots(head)
        check_slots(tail)
    reader.fail = set()
    assert sorted(use(residency, 0, ids([1, 2]))) == [1, 2]


def test_a_kept_head_is_a_hit_and_its_tail_is_read_again() -> None:
    residency, _, _, reader = make(20, 4)
    use(residency, 0, ids([1, 2]))
    reader.demanded.clear()
    use(residency, 0, ids([2, 1]))
    assert sorted(set(reader.demanded)) == [KEYS + 1, KEYS + 2]
    decode = residency.stats().decode
    assert (decode.hits, decode.misses, decode.demand_bytes) == (2, 2, 6 * SLOT)


def test_missing_heads_are_read_before_tails() -> None:
    residency, _, _, reader = make(20, 4)
    residency.fetch(1, ids([3, 4]))
    heads = [EXPERTS + 3, EXPERTS + 4]
    assert reader.demanded == [*heads, *(KEYS + key for key in heads)]


def test_a_guess_reads_the_tail_too_and_the_use_need_not_wait() -> None:
    residency, _, tail, reader = make(20, 8)
    use(residency, 0, ids([1, 2]))
    assert residency.speculate(1, [5, 6], 1) == 4
    for key in list(reader.jobs):
        reader.finish(key)
    reader.demanded.clear()
    arrivals = residency.fetch(1, ids([5, 6]))
    assert list(next(arrivals)) == [5, 6]
    assert not reader.jobs
    assert list(arrivals) == []
    stats = residency.stats()
    assert (stats.decode.hits, stats.decode.foreseen) == (2, 2)
    assert (stats.useful_bytes, stats.wasted_bytes) == (4 * SLOT, 0)
    assert not tail.staged


def test_tails_are_waited_for_without_a_guess_even_if_all_heads_are_kept() -> None:
    residency, *_ = make(20, 8)
    use(residency, 0, ids([0, 1]))
    wanted = residency.wanted
    use(residency, 0, ids([0, 1]))
    assert residency.wanted == wanted + 2
    assert residency.may_lack(0, [0, 1])
    use(residency, WHOLE, ids([0, 1]))
    wanted = residency.wanted
    use(residency, WHOLE, ids([0, 1]))
    assert residency.wanted == wanted
    assert not residency.may_lack(WHOLE, [0, 1])


def test_a_tail_that_is_late_is_not_what_a_miss_costs() -> None:
    residency, *_ = make(20, 8)
    use(residency, 0, ids([0, 1]))
    waited = residency.waited, residency.waited_s
    residency.speculate(0, [0, 1], 1)
    use(residency, 0, ids([0, 1]))
    assert (residency.waited, residency.waited_s) == waited


def test_layers_kept_whole_read_no_tails() -> None:
    residency, _, _, reader = make(20, 4)
    use(residency, WHOLE, ids([1, 2]))
    residency.speculate(WHOLE, [3], 1)
    assert max(reader.demanded + reader.speculated) < KEYS


def test_memory_given_back_comes_from_what_is_kept() -> None:
    residency, _, tail, _ = make(20, 4)
    for layer in range(LAYERS):
        use(residency, layer, ids([1, 2]))
    assert residency.give_back(4 * SLOT) > 0
    assert tail.memory.num_slots == 4
    for layer in range(LAYERS):
        assert sorted(use(residency, layer, ids([1, 5]))) == [1, 5]
