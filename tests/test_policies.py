"""Policies against hand-worked cases and against an oracle that is slow and plain."""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import slow_policies as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from moestream.policies import (
    ARC,
    LCP,
    LFRU,
    LFU,
    LRU,
    POLICIES,
    Belady,
    Blend,
    Decay,
    Layered,
    Policy,
    PolicyFactory,
    Random,
    hottest,
    next_uses,
)

N_KEYS = 8
Sets = list[tuple[list[int], int]]

routed = st.lists(st.integers(0, N_KEYS - 1), min_size=1, max_size=4, unique=True)
sizes = st.lists(st.sampled_from([2, 3, 5]), min_size=N_KEYS, max_size=N_KEYS)
budgets = st.integers(1, 30)


@st.composite
def histories(draw: st.DrawFn, step: int = 1) -> Sets:
    """Sets at tokens that rise by 0, ``step`` or a few of it."""
    token, sets = 0, []
    for keys in draw(st.lists(routed, min_size=1, max_size=40)):
        token += step * draw(st.integers(0, 3))
        sets.append((keys, token))
    return sets


def decisions(policy: Policy, sets: Sets, begun: Sequence[int] = ()) -> oracle.Decisions:
    """Run a policy that has ``begun`` with some keys, and hold it to its contract on the way."""
    resident = set(begun)
    made = []
    for keys, token in sets:
        missing, evicted = policy.access(keys, token)
        assert missing == [key for key in keys if key not in resident]
        resident |= set(keys)
        assert len(set(evicted)) == len(evicted)
        assert set(evicted) <= resident
        resident -= set(evicted)
        assert policy.used_bytes == sum(policy.sizes[key] for key in resident)
        assert policy.used_bytes <= policy.budget_bytes or resident == set(keys)
        made.append((missing, set(evicted)))
    return made


def hits(made: oracle.Decisions, sets: Sets) -> int:
    return sum(len(keys) - len(missing) for (missing, _), (keys, _) in zip(made, sets, strict=True))


def foresee(sets: Sets) -> list[int]:
    keys = np.array([key for keys, _ in sets for key in keys], np.int32)
    return next_uses(keys, np.cumsum([0, *(len(keys) for keys, _ in sets)])).tolist()


def in_turn(keys: str) -> Sets:
    """Single experts, a token each."""
    return [([int(key)], token) for token, key in enumerate(keys)]


def test_lru_drops_what_was_used_longest_ago() -> None:
    made = decisions(LRU([1] * 8, 2), in_turn("01021"))
    assert [evicted for _, evicted in made] == [set(), set(), set(), {1}, {0}]


def test_lru_below_one_cycle_never_hits() -> None:
    made = decisions(LRU([1] * 8, 3), in_turn("0123" * 5))
    assert hits(made, in_turn("0123" * 5)) == 0


def test_lfu_keeps_what_is_used_often_and_remembers_what_it_dropped() -> None:
    made = decisions(LFU([1] * 8, 2), in_turn("00121"))
    # 1 comes back with two uses, as many as 0 has, which is older.
    assert [evicted for _, evicted in made] == [set(), set(), set(), {1}, {2}]
    assert [evicted for _, evicted in decisions(LFU([1] * 8, 1), in_turn("0011"))][2] == {0}


def test_decay_forgets_where_lfu_does_not() -> None:
    shift = in_turn("000000" + "12121212")
    lfu = decisions(LFU([1] * 8, 2), shift)
    decay = decisions(Decay([1] * 8, 2, half_life=1), shift)
    assert hits(lfu, shift) == 5
    assert hits(decay, shift) == 5 + 6  # one use of 1 outweighs all of 0, which goes at once


def test_decay_window_counts_recent_uses_alone() -> None:
    sets = [*in_turn("000012"), ([3], 6)]
    # Without fading, 0 outweighs the others until its uses leave the window.
    wide = decisions(Decay([1] * 8, 3, half_life=1e9, window=100), sets)
    narrow = decisions(Decay([1] * 8, 3, half_life=1e9, window=3), sets)
    assert wide[-1][1] == {1}
    assert narrow[-1][1] == {0}


def test_decay_window_leaves_no_rounding_behind() -> None:
    # 1 + 2 ** (1 / 3) less both is not zero in floating point; both keys must come out equal.
    sets = [([0], 0), ([0, 1], 1), ([2], 10)]
    made = decisions(Decay([1] * 8, 2, half_life=3, window=4), sets)
    assert made[-1][1] == {0}


def test_lcp_weighs_uses_by_the_time_since_the_last() -> None:
    sets = [([0], 0), ([0], 0), ([0], 0), ([1], 64), ([2], 128)]
    # At token 128: 3 * 0.25 for 0, 1 * 0.5 for 1.
    assert decisions(LCP([1] * 8, 2), sets)[-1][1] == {1}
    sets[-1] = ([2], 192 + 64)
    sets[3] = ([1], 192)  # now 3 / 16 against 1 / 2
    assert decisions(LCP([1] * 8, 2), sets)[-1][1] == {0}


def test_blend_keeps_a_fresh_expert_of_a_layer_that_is_still_to_come() -> None:
    # Two layers; layer 0 uses 0, then 1; layer 1 used 4 and 5 in the pass before.
    sets = [([0], 0), ([4, 5], 0), ([1], 1)]
    assert decisions(Decay([1] * 8, 3, half_life=32), sets)[-1][1] == {0}
    sets = [([0], 0), ([4, 5], 0), ([0], 1), ([6], 1), ([1], 2)]
    # 0 has the higher count, but layer 0 has passed it over; 6 is fresh, 4 and 5 are not.
    assert decisions(Blend([1] * 8, 4, half_life=32), sets)[-1][1] == {4}


def test_arc_resists_a_scan() -> None:
    # 0 and 1 are used twice; a scan of others goes through the list of once-used experts.
    sets = in_turn("0101" + "234567" + "01")
    assert hits(decisions(ARC([1] * 8, 4), sets), sets) == 4
    assert hits(decisions(LRU([1] * 8, 4), sets), sets) == 2


def test_lfru_protects_what_was_hit_again() -> None:
    sets = in_turn("00" + "123456" + "0")
    assert hits(decisions(LFRU([1] * 8, 4), sets), sets) == 2
    assert hits(decisions(LRU([1] * 8, 4), sets), sets) == 1


def test_random_repeats_itself_with_a_seed_and_not_without() -> None:
    sets = in_turn("01234567" * 20)
    first, same, other = (decisions(Random([1] * 8, 4, seed=seed), sets) for seed in (0, 0, 1))
    assert first == same
    assert first != other


def test_belady_drops_what_is_needed_last() -> None:
    sets = in_turn("012013")
    made = decisions(Belady([1] * 8, 2, next_uses=foresee(sets)), sets)
    assert [evicted for _, evicted in made] == [set(), set(), {1}, set(), {0}, {1}]


def test_bypass_may_drop_what_was_just_used() -> None:
    sets = in_turn("01020")
    policy = Belady([1] * 8, 1, next_uses=foresee(sets), bypass=True)
    assert [policy.access(*one)[1] for one in sets] == [[], [1], [], [2], []]


def test_next_uses_names_the_set_of_the_next_use() -> None:
    assert foresee([([0, 1], 0), ([1], 0), ([2, 0], 1)])[:3] == [2, 1, 2**62]


def test_layers_are_independent() -> None:
    policy = Layered([LRU([1] * 4, 1), LRU([1] * 4, 2)])
    sets = [([0], 0), ([4, 5], 0), ([1], 1), ([6], 1), ([0], 2)]
    assert [set(policy.access(*one)[1]) for one in sets] == [set(), set(), {0}, {4}, {1}]
    assert policy.used_bytes == 3


def test_budget_may_shrink_while_running() -> None:
    for make in POLICIES.values():
        policy = make([1] * 8, 6)
        policy.access([0, 1, 2], 0)
        policy.access([3, 4, 5], 1)
        policy.budget_bytes = 3
        _, evicted = policy.access([5], 2)
        assert len(evicted) == 3
        assert 5 not in evicted


CASES: dict[str, tuple[PolicyFactory, oracle.Rank, int]] = {
    "lru": (LRU, oracle.lru, 1),
    "lfu": (LFU, oracle.lfu, 1),
    "decay 1": (partial(Decay, half_life=1), oracle.decay(1), 1),
    "decay 4": (partial(Decay, half_life=4), oracle.decay(4), 4),
    "decay 1 window 3": (partial(Decay, half_life=1, window=3), oracle.decay(1, 3), 1),
    "lcp": (LCP, oracle.lcp, 64),
}


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None)
@given(data=st.data(), sizes=sizes, budget=budgets)
def test_policy_agrees_with_the_plain_one(
    name: str, data: st.DataObject, sizes: Sequence[int], budget: int
) -> None:
    make, rank, step = CASES[name]
    sets = data.draw(histories(step))
    assert decisions(make(sizes, budget), sets) == oracle.slow(sets, sizes, budget, rank)


@settings(deadline=None)
@given(histories(), st.integers(1, 12))
def test_arc_agrees_with_the_plain_one(sets: Sets, capacity: int) -> None:
    made = decisions(ARC([4] * N_KEYS, 4 * capacity), sets)
    assert made == oracle.slow_arc(sets, 4, 4 * capacity)


@settings(deadline=None)
@given(histories(), sizes, budgets)
def test_lfru_agrees_with_the_plain_one(sets: Sets, sizes: Sequence[int], budget: int) -> None:
    made = decisions(LFRU(sizes, budget), sets)
    assert made == oracle.slow_lfru(sets, sizes, budget)


@pytest.mark.parametrize("seed", range(4))
def test_all_agree_on_long_histories(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [int(rng.choice([2, 3, 5])) for _ in range(N_KEYS)]
    liking = rng.dirichlet(np.full(N_KEYS, 0.7)) + 0.01
    for budget in (9, 16):
        picks = [
            rng.choice(N_KEYS, rng.integers(1, 4), replace=False, p=liking / liking.sum()).tolist()
            for _ in range(120)
        ]
        for make, rank, step in CASES.values():
            sets = [(keys, step * (i // 2)) for i, keys in enumerate(picks)]
            assert decisions(make(sizes, budget), sets) == oracle.slow(sets, sizes, budget, rank)
        assert decisions(LFRU(sizes, budget), sets) == oracle.slow_lfru(sets, sizes, budget)
        narrow = decisions(ARC([2] * N_KEYS, budget), sets)
        assert narrow == oracle.slow_arc(sets, 2, budget)
        # More keys than ARC may remember, so that its ghosts are forgotten.
        wide = [
            (list(dict.fromkeys((rng.zipf(1.5, 3) % 30).tolist())), i) for i in range(len(picks))
        ]
        assert decisions(ARC([2] * 30, budget), wide) == oracle.slow_arc(wide, 2, budget)


@settings(deadline=None)
@given(st.lists(st.tuples(routed, routed), min_size=1, max_size=20), st.integers(1, 30))
def test_blend_agrees_with_the_plain_one(
    passes: list[tuple[list[int], list[int]]], budget: int
) -> None:
    sets = [
        ([N_KEYS * layer + key for key in keys], token)
        for token, both in enumerate(passes)
        for layer, keys in enumerate(both)
    ]
    sizes = [2] * (2 * N_KEYS)
    made = decisions(Blend(sizes, budget, half_life=1, bonus=0.25), sets)
    assert made == oracle.slow_blend(sets, sizes, budget, 2, Fraction(1, 2))


@settings(deadline=None)
@given(histories(), sizes, budgets, st.booleans())
def test_belady_agrees_with_the_plain_one(
    sets: Sets, sizes: Sequence[int], budget: int, bypass: bool
) -> None:
    policy = Belady(sizes, budget, next_uses=foresee(sets), bypass=bypass)
    made = [(missing, set(evicted)) for missing, evicted in (policy.access(*s) for s in sets)]
    assert made == oracle.slow(sets, sizes, budget, oracle.belady, bypass=bypass)


@settings(deadline=None)
@given(histories(), st.integers(4, 30))
def test_nothing_beats_belady_when_all_experts_have_one_size(sets: Sets, budget: int) -> None:
    equal = [3] * N_KEYS
    future = foresee(sets)
    best = hits(decisions(Belady(equal, budget, next_uses=future), sets), sets)
    for make in POLICIES.values():
        assert hits(decisions(make(equal, budget), sets), sets) <= best
    with_bypass = Belady(equal, budget, next_uses=future, bypass=True)
    if budget >= 12:  # a set of four fits, so that holding it breaks no budget
        missed = sum(len(with_bypass.access(*one)[0]) for one in sets)
        assert missed <= sum(len(keys) for keys, _ in sets) - best


@pytest.mark.parametrize("make", [LFU, Decay, LCP, Blend])
def test_many_looks_drop_what_one_sort_drops(make: PolicyFactory) -> None:
    """More keys than one look at the scores finds, and tokens enough to rescale them."""
    rng = np.random.default_rng(5)
    n_keys, budget = 5000, 3000
    policy = make([1] * n_keys, budget)
    resident: set[int] = set()
    for token in range(0, 60_000, 601):
        keys = (rng.zipf(1.3, 400) % n_keys).tolist()
        keys = list(dict.fromkeys([*keys, *rng.integers(0, n_keys, 20).tolist()]))
        _, evicted = policy.access(keys, token)
        resident |= set(keys)
        scores = policy._scores  # type: ignore[attr-defined]
        order = sorted(resident - set(keys), key=lambda key: (scores[key], key))
        assert set(evicted) == set(order[: max(0, len(resident) - budget)])
        resident -= set(evicted)


def test_hottest_fill_a_budget_in_order() -> None:
    rates, sizes = [0.1, 0.9, 0.0, 0.5, 0.5], [2, 5, 1, 3, 3]
    assert hottest(rates, sizes, 100) == [1, 3, 4, 0]
    assert hottest(rates, sizes, 10) == [1, 3, 0]  # 4 has no room, 0 has
    assert hottest(rates, sizes, 1) == []


rates = st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=N_KEYS, max_size=N_KEYS)


@pytest.mark.parametrize("name", POLICIES)
@settings(deadline=None)
@given(history=histories(), sizes=sizes, budget=budgets, rates=rates)
def test_a_seeded_policy_keeps_its_contract(
    name: str, history: Sets, sizes: Sequence[int], budget: int, rates: Sequence[float]
) -> None:
    policy = POLICIES[name](sizes, budget)
    begun = policy.seed(rates)
    assert begun == hottest(rates, sizes, budget)
    assert policy.used_bytes == sum(sizes[key] for key in begun)
    decisions(policy, history, begun)


@pytest.mark.parametrize("name", ["lru", "lfu", "decay", "blend", "lcp", "lfru", "arc"])
def test_the_coldest_of_a_profile_go_first(name: str) -> None:
    policy = POLICIES[name]([1] * 8, 3)
    assert policy.seed([0.9, 0.2, 0.5, 0, 0, 0, 0, 0]) == [0, 2, 1]
    assert policy.access([7], 0) == ([7], [1])


@pytest.mark.parametrize("name", ["lru", "decay", "blend", "lcp", "arc"])
def test_a_profile_is_forgotten(name: str) -> None:
    policy = POLICIES[name]([1] * 8, 2)
    policy.seed([1.0, 1.0, 0, 0, 0, 0, 0, 0])
    for token in range(12):
        policy.access([6, 7], token)
    assert policy.access([6, 7], 12)[0] == []
    assert policy.access([5], 13)[1][0] in (6, 7)


def test_a_seed_counts_as_uses_before_the_first_token() -> None:
    # Four tokens of rate 0.75 are three uses: two of 1 are less, four are more.
    for times, gone in ((2, 1), (4, 0)):
        policy = Decay([1] * 8, 2, half_life=1e9)
        policy.seed([0.75, 0.001, 0, 0, 0, 0, 0, 0])
        for _ in range(times):
            policy.access([1], 0)
        assert policy.access([2], 0)[1] == [gone]


def test_a_seed_leaves_the_window_with_its_token() -> None:
    def last(token: int) -> list[int]:
        policy = Decay([1] * 8, 2, half_life=1e9, window=3)
        policy.seed([1.0, 0, 0, 0, 0, 0, 0, 0])
        policy.access([1], 2)
        return policy.access([2], token)[1]

    assert (last(2), last(3)) == ([1], [0])


def test_a_seed_is_worth_no_more_than_its_policy_would_remember() -> None:
    def score(**settings: float) -> float:
        policy = Decay([1], 1, **settings)
        policy.seed([1.0])
        return policy._scores[0]

    assert score() == score(half_life=float("inf")) == 4
    assert score(window=2) == 2
    assert score(half_life=1) == pytest.approx(2, abs=0.1)  # 1 + 1/2 + 1/4 ...


def test_uses_come_after_all_seeds_of_as_many_in_lfu() -> None:
    policy = LFU([1] * 8, 2)
    assert policy.seed([0.3, 0.49, 0, 0, 0, 0, 0, 0]) == [1, 0]  # 1.2 and 1.96 uses
    assert policy.access([5], 0)[1] == [0]
    assert policy.access([6], 0)[1] == [1]


def test_a_seed_of_lcp_counts_on_with_the_next_use() -> None:
    policy = LCP([1] * 8, 2)
    policy.seed([1.0, 0.001, 0, 0, 0, 0, 0, 0])  # four uses of 0
    for key in (1, 1, 1, 0):
        policy.access([key], 64)
    assert policy.access([2], 64)[1] == [1]
