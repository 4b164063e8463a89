"""Guessing: what is asked for, what is counted, and when it is switched off."""

from functools import partial
from itertools import count

import numpy as np
import pytest

from moestream.streaming.prefetch import _NOTED, _REMEMBERED_AHEAD, EachAlone, Prefetcher
from moestream.streaming.remembered import RememberedRouting
from moestream.streaming.statistics import ResidencyStats
from moestream.streaming.trial import _AWAKE, _COLD, _KEPT, _TRIALS, _TRIED
from moestream.streaming.worth import _USUAL

LAYERS = (0, 1, 2)


class FakeResidency:
    """Takes guesses down; its counts are set by the test."""

    def __init__(self) -> None:
        self.counts = ResidencyStats()
        self.wanted, self.waited, self.waited_s = 0, 0, 0.0
        self.guesses: list[tuple[int, list[int], int]] = []

    def want(self, experts: int) -> None:
        """So many were not in memory, and each was waited for for long."""
        self.wanted += experts
        self.waited += experts
        self.waited_s += 1000.0 * experts

    def may_lack(self, layer: int, expert_ids: list[int]) -> bool:
        return bool(expert_ids)

    def speculate(self, layer: int, expert_ids: list[int], ahead: int) -> int:
        self.guesses.append((layer, list(expert_ids), ahead))
        return len(expert_ids)


def make(layers_ahead: int = 1, **options):
    residency = FakeResidency()

    # A layer's router gives its own number and what the stream says.
    def predict(x: np.ndarray, n: int) -> np.ndarray:
        return np.array([[n, int(row[0])] for row in x], np.int32)

    foretell = EachAlone({n: partial(predict, n=n) for n in LAYERS})
    return Prefetcher(residency, LAYERS, foretell, layers_ahead=layers_ahead, **options), residency


def stream(value: int = 7, tokens: int = 1) -> np.ndarray:
    return np.full((tokens, 4), value, np.float32)


def routed(*experts: int) -> np.ndarray:
    return np.array([experts], np.int32)


def run_tokens(prefetcher: Prefetcher, count: int, wanted: int = 0) -> None:
    """Each layer of each token wants so many that are not in memory."""
    for _ in range(count):
        prefetcher.before_pass(1)
        for layer in LAYERS:
            prefetcher._residency.want(wanted)
            prefetcher.before_route(layer, stream())
            prefetcher.after_fetch(layer, stream(), routed(layer, 7))
        prefetcher.after_pass()


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
    prefetcher.after_fetch(2, x, np.zeros((3, 2), np.int32))
    assert prefetcher.recall[1].recall == pytest.approx(4 / 6)


def test_what_was_scored_is_not_scored_again_at_another_passs_last_layer():
    prefetcher, _ = make()
    run_tokens(prefetcher, 1)
    prefetcher.after_fetch(2, stream(), routed(1, 2))  # a prompt's last row, which was begun first
    assert prefetcher.recall[1].routed == 2


def test_what_a_prompts_layers_want_between_tokens_is_not_theirs():
    prefetcher, residency = make(clock=count().__next__)
    for _ in range(2 * _USUAL):
        run_tokens(prefetcher, 1)
        residency.want(50)
        prefetcher.after_fetch(0, stream(tokens=9), np.zeros((9, 2), np.int32))
    assert not prefetcher._worth.usually_pays


def test_recall_is_that_of_the_nearest_guess():
    prefetcher, _ = make(2)
    prefetcher.after_fetch(0, stream(), routed(0, 1))
    prefetcher.after_fetch(1, stream(9), routed(1, 3))  # guessed 1 and 7
    prefetcher.after_fetch(2, stream(), routed(9, 2))  # guessed 2 and 9
    assert {layer: record.recall for layer, record in prefetcher.recall.items()} == {1: 0.5, 2: 1}


def test_guesses_go_on_only_while_they_make_it_faster():
    """A token takes 1 s, and 3 s if it is guessed for."""
    residency, now = FakeResidency(), [0.0]
    foretell = EachAlone({n: lambda x: np.array([[1]], np.int32) for n in LAYERS})
    prefetcher = Prefetcher(residency, LAYERS, foretell, clock=lambda: now[0])
    for _ in range(_COLD + _TRIALS * _TRIED + _KEPT // 2):
        prefetcher.before_pass(1)
        now[0] += 3.0 if prefetcher.is_on else 1.0
        for layer in LAYERS:
            residency.want(1)
            prefetcher.after_fetch(layer, stream(), routed(layer, 7))
        prefetcher.after_pass()
    assert not prefetcher.is_on
    made = len(residency.guesses)
    prefetcher.before_pass(1, np.array([5], np.int32))
    run_tokens(prefetcher, 1, wanted=1)
    assert len(residency.guesses) == made
    prefetcher.tries_without = False
    run_tokens(prefetcher, 1)
    assert len(residency.guesses) == made + 2


def remembering():
    residency = FakeResidency()
    foretell = EachAlone({n: lambda x: np.zeros((len(x), 0), np.int32) for n in LAYERS})
    remembered = RememberedRouting(LAYERS)
    return Prefetcher(residency, LAYERS, foretell, remembered=remembered), residency


def run_pass(prefetcher: Prefetcher, tokens: list[int], shift: int = 0) -> None:
    """A token t goes to t + layer + shift, and to 99."""
    prefetcher.before_pass(len(tokens), np.array(tokens, np.int32))
    for layer in LAYERS:
        ids = np.array([[token + layer + shift, 99] for token in tokens], np.int32)
        prefetcher.after_fetch(layer, stream(tokens=len(tokens)), ids)
    prefetcher.after_pass()


def test_what_a_token_was_routed_to_is_read_when_it_comes_again():
    prefetcher, residency = remembering()
    run_pass(prefetcher, [5])
    run_pass(prefetcher, [6])
    assert not [guess for guess in residency.guesses if guess[1]]
    prefetcher.before_pass(1, np.array([5], np.int32))
    found = [guess for guess in residency.guesses if guess[1]]
    assert found == [(n, [5 + n, 99], n + 1) for n in range(min(_REMEMBERED_AHEAD, 3))]


def test_the_latest_routing_of_a_token_counts_and_prompts_are_learnt_from():
    prefetcher, residency = remembering()
    run_pass(prefetcher, list(range(20)))
    assert not [guess for guess in residency.guesses if guess[1]]
    run_pass(prefetcher, [7], shift=30)
    residency.guesses.clear()
    prefetcher.before_pass(2, np.array([7, 8], np.int32))
    assert residency.guesses[0] == (0, [37, 8, 99], 1)


def test_nothing_is_remembered_of_passes_whose_layers_mix():
    prefetcher, residency = remembering()
    prefetcher.before_pass(20, np.arange(20, dtype=np.int32))
    prefetcher.after_fetch(0, stream(tokens=20), np.full((20, 2), 3, np.int32))
    run_pass(prefetcher, [5])
    for layer in LAYERS[1:]:
        prefetcher.after_fetch(layer, stream(tokens=1), np.full((1, 2), 9, np.int32))
    prefetcher.after_pass()
    residency.guesses.clear()
    prefetcher.before_pass(1, np.array([5], np.int32))
    assert residency.guesses == [(0, [3], 1)]


def test_a_few_last_rows_of_a_prompt_are_not_guessed_for():
    prefetcher, residency = make(1)
    prefetcher.before_pass(513)
    for rows in (512, 1):
        prefetcher.after_fetch(0, stream(tokens=rows), np.full((rows, 2), 3, np.int32))
    assert not residency.guesses


def test_layers_beyond_the_first_few_are_read_as_the_pass_goes_on(monkeypatch):
    monkeypatch.setattr("moestream.streaming.prefetch._REMEMBERED_AHEAD", 1)
    prefetcher, residency = remembering()
    run_pass(prefetcher, [5])
    residency.guesses.clear()
    run_pass(prefetcher, [5])
    assert [guess for guess in residency.guesses if guess[1]] == [
        (n, [5 + n, 99], 1) for n in LAYERS
    ]


def test_where_nothing_is_missed_nothing_is_guessed_nor_heard():
    prefetcher, residency = make(clock=count().__next__)  # a guess takes time
    heard = []
    prefetcher._foretell.note = lambda layer, x: heard.append(layer)
    run_tokens(prefetcher, _USUAL)
    made = len(residency.guesses)
    assert made == len(LAYERS) - 1  # of the first token, before it was known what they take
    heard.clear()
    run_tokens(prefetcher, 9)
    assert len(residency.guesses) == made
    assert not heard
    run_tokens(prefetcher, 2 * _KEPT)
    assert prefetcher.is_on  # these tell nothing of what guesses save
    made = len(residency.guesses)
    run_tokens(prefetcher, _USUAL, wanted=1)
    assert len(residency.guesses) > made
    assert heard


def test_a_token_that_misses_is_guessed_for_among_those_that_do_not():
    prefetcher, residency = make(clock=count().__next__)
    for wanted in (1, 0) * 4:
        run_tokens(prefetcher, 1, wanted)
    residency.guesses.clear()
    prefetcher.before_pass(1)
    prefetcher._worth._wanted = 0.0
    prefetcher.after_fetch(0, stream(), routed(1, 2))
    assert not residency.guesses
    residency.want(1)
    prefetcher.after_fetch(1, stream(), routed(1, 2))
    assert [layer for layer, _, _ in residency.guesses] == [2]


def test_nothing_is_prepared_for_a_guess_that_is_not_made():
    prepared = []
    prepare = {n: lambda x, n=n: prepared.append(n) for n in LAYERS}
    prefetcher, residency = make(clock=count().__next__, prepare=prepare)
    for wanted in (0, 1, 0):
        run_tokens(prefetcher, 2 * _USUAL, wanted)
        assert prepared == [layer for layer, _, _ in residency.guesses]
    assert 2 < len(prepared) < 2 * 6 * _USUAL


def test_a_run_without_guesses_hears_nothing_until_it_tries_again():
    prefetcher, residency = make(clock=count().__next__)  # to guess takes time, and saves none
    heard = []
    prefetcher._foretell.note = lambda layer, x: heard.append(layer)
    run_tokens(prefetcher, _COLD + _TRIED, wanted=1)
    assert not prefetcher.is_on
    made = len(residency.guesses)
    heard.clear()
    run_tokens(prefetcher, _KEPT - _AWAKE, wanted=1)
    assert not heard
    run_tokens(prefetcher, _AWAKE, wanted=1)
    assert heard == [*LAYERS] * (_AWAKE // _NOTED)
    assert len(residency.guesses) == made
    run_tokens(prefetcher, _TRIED, wanted=1)
    assert len(residency.guesses) > made
