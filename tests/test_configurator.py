"""The configurator, against exhaustive search and cases worked by hand."""

import itertools

import numpy as np
import pytest

from moestream.policies.configurator import (
    SPLITS,
    ReadCost,
    best_kept,
    configure,
    configure_layers,
    typical_uses,
)


def expected_wait_s(uses, count: int, share: float, size: int, k: int, disk: ReadCost) -> float:
    """By going through all outcomes of k independent draws."""
    falling = sorted(uses, reverse=True)
    chance = sum(falling[:count]) / sum(falling)
    total = 0.0
    for outcome in itertools.product((True, False), repeat=k):
        hits = sum(outcome)
        probability = chance**hits * (1 - chance) ** (k - hits)
        read = k * size - hits * int(size * share)
        total += probability * max(read / disk.bytes_per_s - disk.hidden_s, 0.0)
    return total


def least_wait_s(uses, room: int, size: int, k: int, disk: ReadCost) -> float:
    """Over every share and every number of experts that has room."""
    return min(
        expected_wait_s(uses, count, share, size, k, disk)
        for share in SPLITS
        for count in range(min(room // int(size * share), len(uses)) + 1)
    )


@pytest.mark.parametrize("seed", range(20))
def test_one_layer_keeps_what_waits_least(seed: int) -> None:
    rng = np.random.default_rng(seed)
    uses, k = rng.exponential(size=8) ** 2, int(rng.integers(1, 4))
    disk = ReadCost(1000.0, float(rng.choice([0.0, 0.3, 1.0, 1.5])))
    for room in (0, 900, 2100, 4000, 7999, 8000, 20000):
        kept = best_kept(uses, room, 1000, k, disk)
        assert kept.count * int(1000 * kept.share) <= room
        assert kept.count <= 8
        told = expected_wait_s(uses, kept.count, kept.share, 1000, k, disk)
        assert kept.wait_s == pytest.approx(told)
        assert kept.wait_s == pytest.approx(least_wait_s(uses, room, 1000, k, disk))


@pytest.mark.parametrize("hidden_s", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("seed", range(8))
def test_budget_is_divided_as_an_exhaustive_search_divides_it(seed: int, hidden_s: float) -> None:
    rng = np.random.default_rng(seed)
    uses, sizes = rng.exponential(size=(3, 5)) ** 2, np.full(3, 800, np.int64)
    disk = ReadCost(1000.0, hidden_s)
    for experts in (2, 5, 9, 14):
        kept = configure(uses, sizes, 800 * experts, 2, disk)
        assert sum(k.count * int(800 * k.share) for k in kept) <= 800 * experts
        best = min(
            sum(least_wait_s(row, 800 * n, 800, 2, disk) for row, n in zip(uses, ns, strict=True))
            for ns in itertools.product(range(6), repeat=3)
            if sum(ns) == min(experts, 15)
        )
        assert sum(k.wait_s for k in kept) == pytest.approx(best, rel=0.02)


def test_whole_experts_where_nothing_is_hidden_and_uses_differ() -> None:
    for room in range(0, 8000, 1000):
        assert best_kept(np.arange(8.0), room, 1000, 2, ReadCost(1e3)).share == 1


def test_halves_where_the_other_half_is_read_unnoticed() -> None:
    """Room for half of the experts, a second to read one, half a second hidden."""
    kept = best_kept(np.ones(8), 4000, 1000, 1, ReadCost(1000.0, 0.5))
    assert (kept.count, kept.share, kept.wait_s) == (8, 0.5, 0.0)


def test_a_layer_that_uses_one_expert_alone_gives_its_budget_to_one_that_uses_all() -> None:
    uses = np.array([[9.0, 0, 0, 0], [1, 1, 1, 1]])
    kept = configure(uses, np.array([10, 10]), 50, 1, ReadCost(10.0))
    assert [k.count for k in kept] == [1, 4]
    assert [k.wait_s for k in kept] == [0, 0]


def test_experts_of_two_sizes_share_a_budget() -> None:
    kept = configure(np.ones((2, 4)), np.array([10, 30]), 100, 1, ReadCost(10.0))
    assert sum(k.count * size for k, size in zip(kept, (10, 30), strict=True)) <= 100
    assert sum(k.wait_s for k in kept) < 2.0


def test_every_kind_of_layer_budget_is_configured() -> None:
    uses = {0: np.ones(4), 3: np.arange(4.0)}
    sizes, disk = {0: 100, 3: 100}, ReadCost(1e3, 0.05)
    for kind in ("global", "uniform", "shallow", "adaptive"):
        kept = configure_layers(kind, uses, sizes, 400, 1, disk)
        assert list(kept) == [0, 3]
        assert all(found.share in SPLITS for found in kept.values())
    assert len(set(configure_layers("global", uses, sizes, 400, 1, disk).values())) == 1


def test_typical_uses_fall_and_are_all_uses() -> None:
    for count in (1, 8, 32, 128):
        uses = typical_uses(count)
        assert uses.sum() == pytest.approx(1)
        assert (np.diff(uses) <= 1e-12).all()
