"""Which guesses are worth making: chances, waits and costs that can be reckoned by hand."""

from types import SimpleNamespace

import pytest

from moestream.streaming.worth import _USUAL, Worth

GUESS_S = 1e-3


def made(layers: int = 3) -> tuple[Worth, SimpleNamespace]:
    residency = SimpleNamespace(wanted=0, waited=0, waited_s=0.0)
    return Worth(residency, layers), residency


def run_token(
    worth: Worth, residency: SimpleNamespace, missing: list[int], wait_s: float
) -> list[bool]:
    """Each layer misses so many experts, each of which is waited for, and is guessed for.

    Returns after which layers a guess for the next one pays.
    """
    worth.begin_token()
    paid = []
    for misses in missing:
        residency.wanted += misses
        worth.heed()
        residency.waited += misses
        residency.waited_s += misses * wait_s
        paid.append(worth.pays)
        worth.took(GUESS_S)
    return paid


@pytest.mark.parametrize(("wait_s", "pays"), [(0.9e-3, False), (1.1e-3, True)])
def test_a_guess_pays_that_saves_more_than_it_takes(wait_s: float, pays: bool) -> None:
    worth, residency = made()
    for _ in range(100):
        run_token(worth, residency, [1, 1, 1], wait_s)
    worth.begin_token()
    assert worth.pays is worth.usually_pays is pays


def test_before_anything_was_guessed_all_pay() -> None:
    worth, _ = made()
    for _ in range(2 * _USUAL):
        worth.begin_token()
        worth.heed()
        assert worth.pays
        assert worth.usually_pays


def test_misses_come_in_a_row() -> None:
    """After a layer that misses, guesses are made until some have missed nothing."""
    worth, residency = made(30)
    run_token(worth, residency, [1] * 30, 20e-3)
    for _ in range(100):
        run_token(worth, residency, [0] * 30, 20e-3)
    missing = [0] * 10 + [2] * 5 + [0] * 85
    paid = run_token(worth, residency, missing, 20e-3)
    assert not any(paid[:10])
    assert all(paid[10:15])
    assert 15 < paid.index(False, 15) < 50


def test_a_token_begins_as_they_usually_are() -> None:
    worth, residency = made(20)
    for _ in range(100):
        run_token(worth, residency, [1] * 20, 2e-3)
    run_token(worth, residency, [0] * 20, 2e-3)
    assert not worth.pays  # by its end nothing was missed for long
    worth.begin_token()
    assert worth.pays


def test_what_is_usual_is_no_single_tokens() -> None:
    worth, residency = made()
    for _ in range(_USUAL):
        run_token(worth, residency, [0, 0, 0], 2e-3)
    for missing, usually in (([9, 9, 9], False), ([0, 0, 0], False), ([9, 9, 9], False)):
        run_token(worth, residency, missing, 2e-3)
        worth.begin_token()
        assert worth.usually_pays is usually
    for _ in range(_USUAL):
        run_token(worth, residency, [1, 1, 1], 2e-3)
    worth.begin_token()
    assert worth.usually_pays


def test_a_token_that_is_not_guessed_for_counts_too() -> None:
    """A run that rests hears of no layers, and notices that more is missed."""
    worth, residency = made()
    for _ in range(20):
        run_token(worth, residency, [0, 0, 0], 2e-3)
    worth.begin_token()
    assert not worth.usually_pays
    for _ in range(_USUAL):
        residency.wanted += 3
        residency.waited += 3
        residency.waited_s += 3 * 2e-3
        worth.begin_token()
    assert worth.usually_pays


def test_what_a_prompt_waits_for_is_no_tokens() -> None:
    worth, residency = made()
    for _ in range(100):
        run_token(worth, residency, [1, 1, 1], 2e-3)
        worth.pause()
        residency.wanted += 1000
        residency.waited += 1000
        residency.waited_s += 1e-3
    worth.begin_token()
    assert worth.pays
    assert worth.usually_pays


def test_one_guess_that_took_long_does_not_end_them() -> None:
    worth, residency = made()
    for _ in range(32):
        run_token(worth, residency, [1, 1, 1], 2e-3)
    worth.took(1.0)  # the process was stopped
    worth.begin_token()
    assert not worth.pays
    for _ in range(500):
        worth.begin_token()
        for _ in range(3):
            residency.wanted += 1
            worth.heed()
            residency.waited += 1
            residency.waited_s += 2e-3
            if worth.pays:
                worth.took(GUESS_S)
    assert worth.pays
