"""Whether guesses are kept to, on machines that exist in numbers alone."""

import random
from dataclasses import dataclass, field

import pytest

from moestream.streaming.statistics import ResidencyStats
from moestream.streaming.trial import _COLD, _KEPT, _TRIALS, _TRIED, Trial


@dataclass
class Machine:
    """Seconds of a token: computing, and waiting for each expert that is not kept.

    Each is (without guesses, with them).
    """

    busy_s: tuple[float, float]
    wait_s: tuple[float, float]
    seed: int = 0
    now: float = 0.0
    guessed: int = 0
    wanted: int = 0
    counts: ResidencyStats = field(default_factory=ResidencyStats)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def run(self, trial: Trial, tokens: int) -> None:
        """Decode; how many experts are not kept varies much."""
        for _ in range(tokens):
            wanted, way = self.chance.choice((0, 1, 4, 30)), trial.guessing
            self.guessed += way
            trial.begin_token()
            stalled_s = wanted * self.wait_s[way]
            self.counts.decode.stall_s += stalled_s
            self.wanted += wanted
            self.now += stalled_s + self.busy_s[way]
            trial.next_token()

    def trial(self, *, trusting: bool = True) -> Trial:
        """One on this machine, which is its residency, too."""
        return Trial(self, lambda: self.now, trusting=trusting)  # type: ignore[arg-type]


CASES = {
    "waits halved": ((5.0, 5.0), (0.5, 0.25), True),
    "waits halved, dear to make": ((5.0, 10.0), (0.5, 0.25), False),
    "nothing saved": ((5.0, 5.0), (0.5, 0.5), False),
    "a tenth saved": ((5.0, 5.0), (0.5, 0.38), True),
    "a part lost": ((5.0, 5.5), (0.5, 0.5), False),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("busy_s", "wait_s", "pays"), CASES.values(), ids=CASES)
def test_it_is_found_out_what_is_faster(busy_s, wait_s, pays: bool, seed: int):
    machine = Machine(busy_s, wait_s, seed)
    trial = machine.trial()
    machine.run(trial, _COLD + _TRIALS * _TRIED)
    machine.guessed = 0
    machine.run(trial, 10 * _KEPT)
    share = machine.guessed / (10 * _KEPT)
    assert share > 0.9 if pays else share < 0.1


def test_it_is_found_out_again_when_the_machine_has_changed():
    machine = Machine((5.0, 8.0), (0.5, 0.5))
    trial = machine.trial()
    machine.run(trial, 3 * _KEPT)
    machine.busy_s, machine.wait_s = (5.0, 5.0), (0.5, 0.1)
    machine.run(trial, 10 * _KEPT)
    machine.guessed = 0
    machine.run(trial, _KEPT)
    assert machine.guessed > 0.8 * _KEPT


@pytest.mark.parametrize(("busy_s", "wait_s", "pays"), CASES.values(), ids=CASES)
def test_without_trust_guesses_are_made_once_they_have_been_tried(busy_s, wait_s, pays: bool):
    machine = Machine(busy_s, wait_s)
    trial = machine.trial(trusting=False)
    machine.run(trial, _COLD)
    assert machine.guessed == 0
    machine.run(trial, _TRIALS * _TRIED)
    assert machine.guessed > 0
    machine.guessed = 0
    machine.run(trial, _KEPT // 2)
    assert machine.guessed == (_KEPT // 2 if pays else 0)


def test_a_pause_between_requests_says_nothing_of_guesses():
    machine = Machine((5.0, 5.0), (0.5, 0.25))
    trial = machine.trial()
    for _ in range(3 * _KEPT):
        machine.run(trial, 20)
        machine.now += 10_000.0 * trial.guessing
    machine.guessed = 0
    machine.run(trial, _KEPT)
    assert machine.guessed > 0.8 * _KEPT


def test_a_long_pass_says_nothing_of_guesses():
    machine = Machine((5.0, 5.0), (0.5, 0.25))
    trial = machine.trial()
    for _ in range(6 * _KEPT):
        machine.run(trial, 3)
        if trial.guessing:
            trial.begin_token()
            trial.pause()
            machine.counts.prefill.stall_s += 900.0
            machine.now += 1000.0
            trial.next_token()
    machine.guessed = 0
    machine.run(trial, _KEPT)
    assert machine.guessed > 0.8 * _KEPT


def test_nothing_is_chosen_by_tokens_that_were_not_measured():
    trial = Machine((5.0, 5.0), (0.5, 0.25)).trial()
    for _ in range(3 * _KEPT):
        trial.begin_token()
        trial.pause()
        trial.next_token()
    assert trial.guessing


def test_a_cold_start_says_nothing_of_guesses():
    machine = Machine((5.0, 5.0), (0.5, 4.5))
    trial = machine.trial()
    machine.run(trial, 16)
    machine.wait_s = (0.5, 0.25)
    machine.run(trial, _TRIALS * _TRIED)
    machine.guessed = 0
    machine.run(trial, _KEPT)
    assert machine.guessed > 0.9 * _KEPT
