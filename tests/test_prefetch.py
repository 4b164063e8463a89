"""Guessing: what is asked for, what is counted, and when it is switched off."""

import numpy as np
import pytest

from moestream.experts.prefetch import _PAUSE, _WINDOW, Prefetcher
from moestream.experts.statistics import ResidencyStats

LAYERS, SIZE = (0, 1, 2), 1000


class FakeResidency:
    """Takes guesses down; its counts are set by the test."""

    def __init__(self) -> None:
        self.counts = ResidencyStats(read_bytes=10**9, read_busy_s=1.0)
        self.guesses: list[tuple[int, list[int], int]] = []

    def speculate(self, layer: int, expert_ids: list[int], ahead: int) -> int:
        self.guesses.append((layer, list(expert_ids), ahead))
        return len(expert_ids)

    def stats(self) -> ResidencyStats:
        return self.counts


def make(layers_ahead: int = 1, **options):
    residency = FakeResidency()
    # A layer's router gives its own number and what the stream says.
    predictors = {n: lambda x, n=n: np.array([[n, int(x[0, 0])]], np.int32) for n in LAYERS}
    sizes = dict.fromkeys(LAYERS, SIZE)
    prefetcher = Prefetcher(residency, predictors, sizes, layers_ahead=layers_ahead, **options)
    return prefetcher, residency


def stream(value: int = 7, tokens: int = 1) -> np.ndarray:
    return np.full((tokens, 4), value, np.float32)


def routed(*experts: int) -> np.ndarray:
    return np.array([experts], np.int32)


def run_tokens(prefetcher: Prefetcher, count: int) -> None:
    for _ in range(count):
        for layer in LAYERS:
            prefetcher.after_fetch(layer, stream(), routed(layer, 7))


@pytest.mark.parametrize(
    ("ahead", "expected"), [(1, [(1, [1, 7], 1)]), (2, [(1, [1, 7], 1), (2, [2, 7], 2)])]
)
def test_the_next_layers_routers_are_asked_nearest_first(ahead, expected):
    prefetcher, residency = make(ahead)
    prefetcher.after_fetch(0, stream(), routed(5, 6))
    assert residency.guesses == expected


def test_the_last_layer_has_nobody_to_ask():
    prefetcher, residency = make()
    prefetcher.after_fetch(2, stream(), routed(5, 6))
    assert residency.guesses == []


def test_prefill_is_not_guessed():
    prefetcher, residency = make()
    prefetcher.after_fetch(0, stream(tokens=3), np.zeros((3, 2), np.int32))
    assert residency.guesses == []


def test_recall_is_that_of_the_nearest_guess():
    prefetcher, _ = make(2)
    prefetcher.after_fetch(0, stream(), routed(0, 1))
    prefetcher.after_fetch(1, stream(9), routed(1, 3))  # guessed 1 and 7
    prefetcher.after_fetch(2, stream(), routed(9, 2))  # guessed 2 and 9
    assert {layer: record.recall for layer, record in prefetcher.recall.items()} == {1: 0.5, 2: 1}


def test_it_goes_on_while_it_saves_reads():
    prefetcher, residency = make()
    for _ in range(3):
        residency.counts.useful_bytes += 10**9
        run_tokens(prefetcher, _WINDOW)
        assert prefetcher.is_on


def test_it_stops_while_nothing_comes_of_it_and_tries_again():
    prefetcher, residency = make()
    residency.counts.wasted_bytes += 10**8
    residency.counts.decode.stall_s += 1.0
    run_tokens(prefetcher, _WINDOW)
    assert not prefetcher.is_on
    made = len(residency.guesses)
    run_tokens(prefetcher, _PAUSE - 1)
    assert len(residency.guesses) == made
    run_tokens(prefetcher, 1)
    assert prefetcher.is_on
    assert len(residency.guesses) > made


def test_waste_on_an_idle_disk_costs_nothing():
    prefetcher, residency = make()
    residency.counts.wasted_bytes += 15 * 10**8
    residency.counts.useful_bytes += 10**9
    run_tokens(prefetcher, _WINDOW)
    assert prefetcher.is_on


def test_mostly_wrong_guesses_stop_even_on_an_idle_disk():
    prefetcher, residency = make()
    residency.counts.wasted_bytes += 3 * 10**9
    residency.counts.useful_bytes += 10**9
    run_tokens(prefetcher, _WINDOW)
    assert not prefetcher.is_on


def test_always_means_always():
    prefetcher, residency = make(always=True)
    residency.counts.wasted_bytes += 10**9
    residency.counts.decode.stall_s += 9.0
    run_tokens(prefetcher, 2 * _WINDOW)
    assert prefetcher.is_on
