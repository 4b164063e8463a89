"""Any order of claims, guesses, failures and memory given back: every expert is what it should be.

Hypothesis finds the order. What is checked after each step: no slot is held twice, none is lost,
what is used is at most what is left, and each expert that is handed out is the one that was asked
for. On a real model, the logits are those of the resident one.
"""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

pytest.importorskip("moestream._native", reason="needs the compiled part")

import test_residency as whole
import test_split_residency as parts
from streamed import open_engine, options_of, plan, resident_logits, sample_tokens
from test_residency import EXPERTS, LAYERS, SLOT, ids

from moestream.policies import POLICIES
from moestream.streaming.slot_table import NONE, SlotTable

SETTINGS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
layers, experts = st.integers(0, LAYERS - 1), st.integers(0, EXPERTS - 1)
sets = st.lists(experts, min_size=2, max_size=2, unique=True)


class Machine(RuleBasedStateMachine):
    """A residency over a disk that reads when it likes; subclasses say which."""

    residency: Any
    tables: list[SlotTable]

    def use(self, layer: int, rows: np.ndarray) -> list[int]:
        """Run one turn, looking at what is handed out."""
        raise NotImplementedError

    @rule(layer=layers, rows=st.lists(sets, min_size=1, max_size=6))
    def turn(self, layer: int, rows: list[list[int]]) -> None:
        self.residency.reader.fail = set()
        used = self.use(layer, ids(*rows))
        assert sorted(used) == sorted({expert for row in rows for expert in row})

    @rule(layer=layers, rows=st.lists(sets, min_size=1, max_size=6), batches=st.integers(0, 3))
    def turn_broken_off(self, layer: int, rows: list[list[int]], batches: int) -> None:
        arrivals = self.residency.fetch(layer, ids(*rows)) or iter(())
        try:
            for _ in range(batches):
                next(arrivals, None)
        except OSError:
            pass

    @rule(key=st.integers(0, LAYERS * EXPERTS - 1))
    def disk_fails(self, key: int) -> None:
        self.residency.reader.fail = {key}

    @rule(layer=layers, guess=sets, ahead=st.integers(1, 3))
    def guess(self, layer: int, guess: list[int], ahead: int) -> None:
        self.residency.speculate(layer, guess, ahead)

    @rule()
    def disk_reads(self) -> None:
        self.residency.reader.begin_some()

    @rule(slots=st.integers(1, LAYERS * EXPERTS))
    def give_back(self, slots: int) -> None:
        before = sum(table.num_kept + table.num_spare for table in set(self.tables))
        given = self.residency.give_back(slots * SLOT)
        after = sum(table.num_kept + table.num_spare for table in set(self.tables))
        assert given == (before - after) * SLOT

    @rule(slots=st.integers(1, LAYERS * EXPERTS))
    def take_back(self, slots: int) -> None:
        before = sum(table.num_kept + table.num_spare for table in set(self.tables))
        taken = self.residency.take_back(slots * SLOT)
        after = sum(table.num_kept + table.num_spare for table in set(self.tables))
        assert taken == (after - before) * SLOT <= slots * SLOT
        if slots == LAYERS * EXPERTS:
            assert after == sum(table.memory.num_slots for table in set(self.tables))

    @invariant()
    def no_slot_is_lost_or_held_twice(self) -> None:
        for table in getattr(self, "tables", ()):
            held = [slot for slot in table.slot_of if slot != NONE]
            free = table.memory.free
            every = [*held, *free, *table._retired]
            assert len(set(every)) == len(every), "one slot for two"
            assert len(every) == table.memory.num_slots, "a slot is lost"
            assert len(held) + len(free) - table._surplus <= table.num_kept + table.num_spare
            assert sum(table.kept) <= table.num_kept, "more is kept than there is room for"


class WholeExperts(Machine):
    @initialize(
        slots=st.integers(0, 40),
        spare=st.integers(1, 6),
        policy=st.sampled_from(sorted(POLICIES)),
        seed=st.integers(0, 99),
    )
    def make(self, slots: int, spare: int, policy: str, seed: int) -> None:
        made = whole.make(slots, policy=POLICIES[policy], spare=spare, seed=seed)
        self.residency, table, _ = made
        self.tables = [table]

    def use(self, layer: int, rows: np.ndarray) -> list[int]:
        return whole.use(self.residency, layer, rows, busy=True)


class PartsOfExperts(Machine):
    @initialize(heads=st.integers(2, 40), tails=st.integers(2, 9), seed=st.integers(0, 99))
    def make(self, heads: int, tails: int, seed: int) -> None:
        self.residency, head, tail, _ = parts.make(heads, tails, seed=seed)
        self.tables = [head, tail]

    def use(self, layer: int, rows: np.ndarray) -> list[int]:
        return parts.use(self.residency, layer, rows)


class Streamed(RuleBasedStateMachine):
    """A real model: whatever is given back or guessed, its logits stay the same bits."""

    @initialize(
        io=st.sampled_from(["madvise", "pread", "direct"]),
        split=st.sampled_from([1.0, 0.5]),
        n_bytes=st.sampled_from([1 << 14, 190_000, 1 << 18, 1 << 30]),
        seed=st.integers(0, 99),
    )
    def open(self, io: str, split: float, n_bytes: int, seed: int) -> None:
        self.expected = resident_logits("qwen3moe", "cpu")
        self.random = random.Random(seed)
        self.engine = open_engine("qwen3moe", "cpu")
        if io == "madvise":
            split = 1.0
        self.engine.stream(plan(n_bytes), options_of(io=io, split=split))
        self.session = self.engine.session()

    @precondition(lambda self: len(self.session.tokens) < len(self.expected))
    @rule(count=st.integers(1, 9), chunk=st.integers(1, 9))
    def forward(self, count: int, chunk: int) -> None:
        start = len(self.session.tokens)
        tokens = sample_tokens()[start : min(start + count, len(self.expected))]
        found = self.session.forward(tokens, chunk_tokens=chunk)
        np.testing.assert_array_equal(found, self.expected[start : start + len(tokens)])

    @rule(length=st.integers(0, 30))
    def go_back(self, length: int) -> None:
        self.session.truncate(min(length, len(self.session.tokens)))

    @rule(n_bytes=st.integers(1, 1 << 17))
    def give_back(self, n_bytes: int) -> None:
        self.engine.streaming.residency.give_back(n_bytes)

    @rule(n_bytes=st.integers(1, 1 << 18))
    def take_back(self, n_bytes: int) -> None:
        self.engine.streaming.residency.take_back(n_bytes)

    @rule()
    def guess(self) -> None:
        residency = self.engine.streaming.residency
        layer = self.random.randrange(self.engine.config.num_layers)
        residency.speculate(layer, self.random.sample(range(residency.num_experts), 2), 1)

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.close()


TestWholeExperts = WholeExperts.TestCase
TestWholeExperts.settings = SETTINGS
TestPartsOfExperts = PartsOfExperts.TestCase
TestPartsOfExperts.settings = SETTINGS
TestStreamed = Streamed.TestCase
TestStreamed.settings = settings(SETTINGS, max_examples=30, stateful_step_count=25)


@pytest.mark.parametrize("io", ["pread", "direct"])
def test_memory_is_given_back_by_slots_that_held_every_expert(io: str) -> None:
    with open_engine("qwen3moe", "cpu") as engine:
        engine.stream(plan(1 << 30), options_of(io=io))
        tokens = sample_tokens()
        session = engine.session()
        session.forward(tokens[:10])
        size = engine.plan_memory("1G").total_expert_bytes
        assert engine.streaming.residency.give_back(size // 2) >= size // 2 - (1 << 16)
        fresh = open_engine("qwen3moe", "cpu")
        with fresh:
            expected = fresh.session().forward(tokens[:30])
        np.testing.assert_array_equal(session.forward(tokens[10:30]), expected[10:])
