"""Guessing: what is asked for, what is counted, and when it is switched off."""

from functools import partial

import numpy as np
import pytest

from moestream.streaming.prefetch import _KEPT, _TRIALS, _WINDOW, Prefetcher
from moestream.streaming.statistics import ResidencyStats

LAYERS = (0, 1, 2)


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
    def predict(x: np.ndarray, n: int) -> np.ndarray:
        return np.array([[n, int(row[0])] for row in x], np.int32)

    predictors = {n: partial(predict, n=n) for n in LAYERS}
    return Prefetcher(residency, predictors, layers_ahead=layers_ahead, **options), residency


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
    prefetcher.after_fetch(0, stream(tokens=9), np.zeros((9, 2), np.int32))
    assert residency.guesses == []


def test_tokens_of_several_sequences_are_guessed_for_together():
    prefetcher, residency = make()
    x = np.concatenate([stream(7), stream(9), stream(7)])
    prefetcher.after_fetch(0, x, np.zeros((3, 2), np.int32))
    assert residency.guesses == [(1, [1, 7, 9], 1)]  # first choices first, each once
    prefetcher.after_fetch(1, x, np.array([[1, 7], [9, 3], [7, 4]], np.int32))
    assert prefetcher.recall[1].recall == pytest.approx(4 / 6)


def test_recall_is_that_of_the_nearest_guess():
    prefetcher, _ = make(2)
    prefetcher.after_fetch(0, stream(), routed(0, 1))
    prefetcher.after_fetch(1, stream(9), routed(1, 3))  # guessed 1 and 7
    prefetcher.after_fetch(2, stream(), routed(9, 2))  # guessed 2 and 9
    assert {layer: record.recall for layer, record in prefetcher.recall.items()} == {1: 0.5, 2: 1}


def stall(prefetcher: Prefetcher, residency: FakeResidency, *, on: float, off: float, tokens: int):
    """Run tokens that stall for ``on`` seconds with guesses and ``off`` without: were they on?"""
    were_on = []
    for _ in range(tokens):
        residency.counts.decode.stall_s += on if prefetcher.is_on else off
        run_tokens(prefetcher, 1)
        were_on.append(prefetcher.is_on)
    return were_on


def test_both_are_tried_twice_before_one_is_chosen():
    prefetcher, residency = make()
    on = stall(prefetcher, residency, on=1, off=2, tokens=_TRIALS * _WINDOW - 1)
    windows = [on[first] for first in range(0, len(on), _WINDOW)]
    assert windows == [True, False, True, False]


@pytest.mark.parametrize(("on", "off"), [(0.1, 0.2), (0.2, 0.1)])
def test_what_stalls_less_is_kept_to(on, off):
    prefetcher, residency = make()
    stall(prefetcher, residency, on=on, off=off, tokens=_TRIALS * _WINDOW)
    kept = stall(prefetcher, residency, on=on, off=off, tokens=_KEPT - 1)
    assert set(kept) == {on < off}


def test_no_guess_is_made_while_they_are_off():
    prefetcher, residency = make()
    stall(prefetcher, residency, on=2, off=1, tokens=_TRIALS * _WINDOW)
    made = len(residency.guesses)
    stall(prefetcher, residency, on=2, off=1, tokens=_KEPT - 1)
    assert len(residency.guesses) == made


def test_the_other_is_tried_again_and_taken_up_once_it_is_better():
    prefetcher, residency = make()
    stall(prefetcher, residency, on=2, off=1, tokens=_TRIALS * _WINDOW + _KEPT)
    assert prefetcher.is_on  # a trial
    stall(prefetcher, residency, on=0.1, off=1, tokens=_WINDOW + 2 * (_KEPT + _WINDOW))
    kept = stall(prefetcher, residency, on=0.1, off=1, tokens=_KEPT)
    assert sum(kept) > _KEPT / 2


@pytest.mark.parametrize("beside", [0.0, 1.0])
def test_what_a_prompt_waits_for_is_no_cost_of_guesses(beside: float) -> None:
    prefetcher, residency = make()
    for _ in range(4 * _WINDOW):
        residency.counts.prefill.stall_s += 0.01 if prefetcher.is_on else 0.02  # of few rows
        run_tokens(prefetcher, 1)
        if prefetcher.is_on:
            prefetcher.after_fetch(0, stream(tokens=9), np.zeros((9, 2), np.int32))
            residency.counts.prefill.stall_s += beside
    run_tokens(prefetcher, 1)
    assert prefetcher.is_on


def test_making_guesses_is_a_cost_too():
    seconds = iter(range(10**6))  # a second passes whenever the time is asked for
    prefetcher, residency = make(clock=lambda: next(seconds))
    stall(prefetcher, residency, on=1, off=2, tokens=_TRIALS * _WINDOW)
    assert not prefetcher.is_on  # it saves one second a token and takes three
