"""Budgets that move between layers: against brute force, and within the budget at any time."""

from itertools import product

import numpy as np
import pytest

from moestream.policies import LRU, Adaptive, Decay, Layered
from moestream.policies.shares import balance_layers

EXPERTS = 5


def some_gains(random: np.random.Generator, layers: int) -> np.ndarray:
    return -np.sort(-random.random((layers, EXPERTS)), axis=1)


def hits(gains: np.ndarray, counts: np.ndarray) -> float:
    return sum(row[:n].sum() for row, n in zip(gains, counts, strict=True))


def best(gains: np.ndarray, sizes: np.ndarray, budget: int, least: int) -> float:
    return max(
        hits(gains, counts)
        for counts in product(range(least, EXPERTS + 1), repeat=len(gains))
        if counts @ sizes <= budget
    )


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("least", [0, 1])
def test_moves_end_at_the_best_division(seed: int, least: int) -> None:
    random = np.random.default_rng(seed)
    gains, sizes = some_gains(random, 4), np.full(4, 10)
    counts = random.integers(least, EXPERTS + 1, 4)
    budget = int(counts @ sizes) + 7
    after = balance_layers(gains, sizes, counts, budget, least=least)
    assert (after >= least).all()
    assert after @ sizes <= budget
    assert hits(gains, after) == pytest.approx(best(gains, sizes, budget, least))


@pytest.mark.parametrize("seed", range(40))
def test_with_experts_of_several_sizes_it_is_off_by_one_expert_at_most(seed: int) -> None:
    random = np.random.default_rng(seed)
    gains, sizes = some_gains(random, 4), random.integers(5, 15, 4)
    counts = random.integers(0, EXPERTS + 1, 4)
    budget = int(counts @ sizes)
    after = balance_layers(gains, sizes, counts, budget)
    assert after @ sizes <= budget
    assert hits(gains, after) >= hits(gains, counts)
    assert hits(gains, after) > best(gains, sizes, budget, 0) - gains.max()


def skewed(step: int) -> list[int]:
    """Layer 0 goes through eight experts; the others use the same two over and over."""
    return [step % 8, (step + 1) % 8]


def run(policy: Layered, steps: int) -> tuple[int, int]:
    missed = most = 0
    for step in range(steps):
        for layer in range(4):
            experts = skewed(step) if layer == 0 else [0, 1]
            missing, _ = policy.access([layer * 8 + expert for expert in experts], step)
            missed += len(missing) * (step >= steps // 2)
            most = max(most, policy.used_bytes)
    return missed, most


@pytest.mark.parametrize("kind", [LRU, Decay])
def test_shares_go_where_they_hit_and_the_budget_holds_meanwhile(kind: type[LRU | Decay]) -> None:
    def parts() -> list[LRU | Decay]:
        return [kind([10] * 8, 40) for _ in range(4)]

    assert run(Layered(parts()), 100)[0] > 0
    moved = Adaptive(parts(), least=2)
    assert run(moved, 100) == (0, 8 * 10 + 3 * 2 * 10)
    assert moved.budget_for(0) == 80


def test_lowering_a_layered_budget_drops_from_every_layer_at_once() -> None:
    policy = Layered([LRU([10] * 8, 40) for _ in range(2)])
    for layer in (0, 1):
        policy.access([layer * 8 + expert for expert in range(4)], 0)
    assert policy.lower(40, 0) == [0, 1, 8, 9]
    assert (policy.budget_bytes, policy.used_bytes) == (40, 40)
    assert policy.budget_for(8) == 20


def test_an_adaptive_budget_holds_after_it_was_lowered() -> None:
    policy = Adaptive([LRU([10] * 8, 40) for _ in range(4)], least=2)
    run(policy, 30)
    policy.lower(60, 30)
    assert policy.used_bytes <= 100
    for step in range(31, 200):
        for layer in range(4):
            experts = skewed(step) if layer == 0 else [0, 1]
            keys = [layer * 8 + expert for expert in experts]
            most = policy.budget_for(keys[0]) // 10
            for first in range(0, len(keys), most) if most else ():
                policy.access(keys[first : first + most], step)
            assert policy.used_bytes <= 100


@pytest.mark.parametrize("kind", [LRU, Decay])
def test_a_profile_begins_within_each_layers_share(kind: type[LRU | Decay]) -> None:
    policy = Layered([kind([10] * 8, 40) for _ in range(2)])
    rates = [1.0 + key for key in range(8)] + [0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.0, 0.0]
    assert policy.seed(rates) == [7, 6, 5, 4, 12, 11, 10, 9]
    assert policy.used_bytes == 80
    assert policy.access([7, 6, 5, 4], 0) == ([], [])
    assert policy.access([8 + 1, 8 + 2, 8 + 3, 8 + 4], 0) == ([], [])
