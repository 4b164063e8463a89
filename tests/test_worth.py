"""Which guesses are worth making: chances, waits and costs that can be reckoned by hand."""

from types import SimpleNamespace

import pytest

from moestream.streaming.statistics import ResidencyStats
from moestream.streaming.worth import _COLD, Worth

LAYERS = [0, 1, 2]


def made() -> tuple[Worth, ResidencyStats]:
    counts = ResidencyStats()
    return Worth(SimpleNamespace(counts=counts), LAYERS), counts


def run_token(
    worth: Worth, counts: ResidencyStats, missing: list[int], wait_s: float, foreseen: int = 0
) -> None:
    """Each layer misses so many experts, each of which is waited for; a guess takes 1 ms.

    So many of the first layer's were foreseen.
    """
    worth.begin_token()
    for place, misses in enumerate(missing):
        counts.decode.misses += misses
        counts.decode.foreseen += foreseen if place == 0 else 0
        worth.heed(place)
        counts.decode.stall_s += misses * wait_s
        worth.took(1e-3)


@pytest.mark.parametrize(("wait_s", "pays"), [(0.9e-3, False), (1.1e-3, True)])
def test_a_guess_pays_that_saves_more_than_it_takes(wait_s: float, pays: bool) -> None:
    worth, counts = made()
    for _ in range(100):
        run_token(worth, counts, [0, 1, 0], wait_s)
    worth.begin_token()
    assert [worth.pays(place) for place in range(3)] == [False, pays, False]


def test_at_first_all_pay() -> None:
    worth, counts = made()
    for _ in range(_COLD):
        run_token(worth, counts, [0, 1, 0], 0.0)
        assert all(worth.pays(place) for place in range(3))
    run_token(worth, counts, [0, 1, 0], 0.0)
    assert not any(worth.pays(place) for place in range(3))


def test_what_was_foreseen_would_be_missed_without_a_guess() -> None:
    worth, counts = made()
    for _ in range(100):
        run_token(worth, counts, [0, 1, 0], 1.1e-3, foreseen=1)
    assert worth.pays(0)


def test_late_ones_do_not_make_a_wait_short() -> None:
    worth, counts = made()
    for _ in range(100):
        run_token(worth, counts, [0, 1, 0], 1.1e-3)
        counts.decode.misses += 3
        counts.decode.late += 3
    worth.begin_token()
    assert worth.pays(1)


def test_a_change_of_what_is_missed_is_noticed() -> None:
    worth, counts = made()
    for _ in range(100):
        run_token(worth, counts, [0, 1, 0], 2e-3)
    for _ in range(20):
        run_token(worth, counts, [1, 0, 0], 2e-3)
    assert [worth.pays(place) for place in range(3)] == [True, False, False]


def test_what_came_while_nobody_heeded_is_no_layers() -> None:
    worth, counts = made()
    for _ in range(100):
        run_token(worth, counts, [0, 1, 0], 2e-3)
    counts.decode.misses += 1000
    counts.decode.stall_s += 2.0
    run_token(worth, counts, [0, 1, 0], 2e-3)
    assert [worth.pays(place) for place in range(3)] == [False, True, False]


def test_passes_of_several_tokens_count_as_those_of_one() -> None:
    worth, counts = made()
    for _ in range(100):
        run_token(worth, counts, [0, 1, 0], 2e-3)
    for _ in range(100):  # two sequences, or guessed tokens: what is counted is prefill
        worth.begin_token()
        for place in range(3):
            counts.prefill.misses += place == 2
            worth.heed(place)
            counts.prefill.stall_s += 2e-3 * (place == 2)
    assert [worth.pays(place) for place in range(3)] == [False, False, True]


def test_what_a_prompt_waits_for_is_no_tokens() -> None:
    worth, counts = made()
    for _ in range(100):
        run_token(worth, counts, [0, 1, 0], 2e-3)
        worth.pause()
        counts.prefill.misses += 1000
        counts.prefill.stall_s += 1e-3
    assert [worth.pays(place) for place in range(3)] == [False, True, False]


def test_one_guess_that_took_long_does_not_end_them() -> None:
    worth, counts = made()
    for _ in range(2 * _COLD):
        run_token(worth, counts, [0, 1, 0], 2e-3)
    worth.took(1.0)  # the process was stopped
    assert not worth.pays(1)
    for _ in range(500):
        worth.begin_token()
        for place in range(3):
            counts.decode.misses += place == 1
            worth.heed(place)
            counts.decode.stall_s += 2e-3 * (place == 1)
            if worth.pays(place):
                worth.took(1e-3)
    assert worth.pays(1)
