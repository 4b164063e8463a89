"""Each sampler alone on distributions small enough to work out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moestream.engine.options import SamplingParams
from moestream.engine.sampling import Sampler, log_probabilities
from moestream.errors import NumericError

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
TENTHS = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))


def drawn(
    logits: np.ndarray, draws: int = 400, history: tuple[int, ...] = (), **params
) -> set[int]:
    sampler = Sampler(SamplingParams(**{**PLAIN, "seed": 1, **params}))
    return {sampler.sample(logits, history) for _ in range(draws)}


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 1}, {3}),
        ({"top_k": 3}, {1, 2, 3}),
        ({"top_k": 9}, {0, 1, 2, 3}),
        ({"top_p": 0.0}, {3}),
        ({"top_p": 0.39}, {3}),
        ({"top_p": 0.69}, {2, 3}),
        ({"top_p": 0.71}, {1, 2, 3}),
        ({"min_p": 0.26}, {1, 2, 3}),
        ({"min_p": 0.74}, {2, 3}),
        ({"min_p": 1.0}, {3}),
    ],
)
def test_filters_keep_what_they_should(params: dict, kept: set[int]) -> None:
    assert drawn(TENTHS, **params) == kept


def test_top_p_counts_what_top_k_left() -> None:
    # Of {0.3, 0.4} the larger holds 0.57: enough for 0.55, though not of the whole.
    assert drawn(TENTHS, top_k=2, top_p=0.55) == {3}


def test_min_p_comes_before_temperature() -> None:
    # At temperature 10 all four would pass 0.74; llama.cpp filters first.
    assert drawn(TENTHS, min_p=0.74, temperature=10.0) == {2, 3}


def test_draws_follow_the_probabilities() -> None:
    sampler = Sampler(SamplingParams(**PLAIN, seed=7))
    counts = np.bincount([sampler.sample(TENTHS, ()) for _ in range(20000)], minlength=4)
    np.testing.assert_allclose(counts / 20000, [0.1, 0.2, 0.3, 0.4], atol=0.015)


def test_greedy_takes_the_first_of_equals() -> None:
    assert drawn(np.array([1, 5, 5, 2], np.float32), temperature=0.0) == {1}


def test_same_seed_same_choices() -> None:
    runs = []
    for seed in (3, 3, 4):
        sampler = Sampler(SamplingParams(**PLAIN, seed=seed))
        runs.append([sampler.sample(TENTHS, ()) for _ in range(50)])
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    ("params", "chosen"),
    [
        ({"repeat_penalty": 2.0}, {2}),  # 4 / 2 falls behind 3
        ({"repeat_penalty": 1.2}, {3}),  # 4 / 1.2 does not
        ({"presence_penalty": 1.5}, {2}),
        ({"presence_penalty": 0.5}, {3}),
        ({"frequency_penalty": 0.6}, {2}),  # twice seen: 1.2 off
        ({"frequency_penalty": 0.4}, {3}),
        ({"repeat_penalty": 2.0, "repeat_last_n": 0}, {3}),
        ({"repeat_penalty": 2.0, "repeat_last_n": 1}, {3}),  # the last token is 0
        ({"repeat_penalty": 2.0, "repeat_last_n": -1}, {2}),
    ],
)
def test_penalties(params: dict, chosen: set[int]) -> None:
    logits = np.array([1, 2, 3, 4], np.float32)
    assert drawn(logits, 1, history=(3, 3, 0), temperature=0.0, **params) == chosen


def test_repeat_penalty_pushes_negative_logits_down() -> None:
    logits = np.array([-1.0, -1.5], np.float32)
    assert drawn(logits, 1, history=(0,), temperature=0.0, repeat_penalty=2.0) == {1}


def test_logits_are_left_as_they_were() -> None:
    logits = np.array([1, 2], np.float32)
    drawn(logits, 1, history=(1,), repeat_penalty=3.0)
    assert logits.tolist() == [1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"top_k": -1},
        {"top_p": -0.1},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repeat_penalty": 0.0},
        {"temperature": math.inf},
        {"repeat_penalty": math.inf},
        {"presence_penalty": math.nan},
        {"frequency_penalty": -math.inf},
        {"repeat_last_n": -2},
    ],
)
def test_values_out_of_range_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingParams(**wrong)


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-100, 1e-10, 9e-7])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    logits = np.array([1, 3, 5, 5, 5 - 1e-6, -30], np.float32)
    with np.errstate(all="raise"):
        assert drawn(logits, draws=50, temperature=temperature) == {2}


EXTREMES = (1e-320, 1e-300, 1e-6, 0.5, 1.0, 1e30, 1e308)


@given(
    temperature=st.sampled_from(EXTREMES),
    repeat_penalty=st.sampled_from(EXTREMES),
    presence_penalty=st.sampled_from([0.0, *EXTREMES, *(-n for n in EXTREMES)]),
    frequency_penalty=st.sampled_from([0.0, *EXTREMES, *(-n for n in EXTREMES)]),
    top_p=st.sampled_from([1e-320, 0.5, 1.0]),
    min_p=st.sampled_from([0.0, 1e-320, 0.5, 1.0]),
)
def test_no_settings_make_numbers_that_are_none(**params: float) -> None:
    logits = np.array([-3e38, -1, 0, 1, 3e38, 2], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for token in drawn(logits, draws=3, history=(0, 1, 2, 4, 4), **params):
            assert 0 <= token < len(logits)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1e-320, 0.8])
def test_logits_that_are_not_finite_are_an_error(wrong: float, temperature: float) -> None:
    logits = np.array([1, wrong, 2], np.float32)
    with pytest.raises(NumericError, match="1 of 3 logits are NaN"):
        drawn(logits, temperature=temperature, top_k=1)


def by_sorting_all(logits: np.ndarray, params: SamplingParams, draw: float) -> set[int]:
    """llama.cpp's samplers as they read: everything sorted, in float64.

    More than one where the draw, or a bound, falls within a rounding of two.
    """
    scores = logits.astype(np.float64)
    ids = np.argsort(-scores, kind="stable")[: params.top_k or None]
    shares = np.exp(scores[ids] - scores[ids[0]])
    found = set()
    for off in (-1e-6, 0, 1e-6):
        kept = ids
        if params.top_p < 1:
            reached = np.cumsum(shares / shares.sum())
            kept = kept[: np.searchsorted(reached, params.top_p + off, side="left") + 1]
        if params.min_p:
            kept = kept[scores[kept] >= scores[kept[0]] + math.log(params.min_p)]
        weights = np.cumsum(np.exp((scores[kept] - scores[kept[0]]) / params.temperature))
        for aside in (-1e-6, 0, 1e-6):
            place = np.searchsorted(weights, (draw + aside) * weights[-1], side="right")
            found.add(int(kept[min(place, len(kept) - 1)]))
    return found


@given(
    size=st.sampled_from([3, 70, 4000, 30_000]),
    spread=st.sampled_from([0.0, 0.5, 3.0, 40.0]),
    rounded=st.booleans(),
    top_k=st.sampled_from([0, 1, 2, 40, 3000]),
    top_p=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.9]),
    temperature=st.sampled_from([0.1, 0.8, 1.0, 3.0]),
    seed=st.integers(0, 1000),
)
def test_the_choice_is_that_of_sorting_all(size, spread, rounded, seed, **params) -> None:
    logits = (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)
    if rounded:  # many are equal
        logits = np.round(logits)
    chosen = SamplingParams(seed=seed, repeat_penalty=1.0, **params)
    sampler, draws = Sampler(chosen), np.random.default_rng(seed)
    for _ in range(3):
        assert sampler.sample(logits, ()) in by_sorting_all(logits, chosen, draws.random())


def test_a_bias_is_added_and_what_is_not_allowed_has_no_chance() -> None:
    class Only:
        def __init__(self) -> None:
            self.taken: list[int] = []

        def allowed(self) -> np.ndarray:
            return np.array([True, True, False, False])

        def accept(self, token: int) -> None:
            self.taken.append(token)

    params, only = SamplingParams(**PLAIN, seed=1), Only()
    sampler = Sampler(params, constraint=only)
    made = [sampler.sample(TENTHS, ()) for _ in range(200)]
    assert set(made) == {0, 1}
    assert only.taken == made
    biased = Sampler(replace(params, logit_bias=((3, -100.0),)))
    assert {biased.sample(TENTHS, ()) for _ in range(200)} == {0, 1, 2}
    everything = tuple((id, -math.inf) for id in range(4))
    for temperature, top_k in ((0.0, 0), (1.0, 0), (1.0, 2)):
        chosen = {"temperature": temperature, "top_k": top_k, "logit_bias": everything}
        banned = Sampler(SamplingParams(**PLAIN | chosen))
        with pytest.raises(NumericError, match="no token that is allowed"):
            banned.sample(TENTHS, ())
    only.allowed = lambda: np.zeros(4, np.bool_)
    with pytest.raises(NumericError, match="no token that is allowed"):
        sampler.sample(TENTHS, ())


def test_chances_are_the_models_own() -> None:
    own, likeliest = log_probabilities(TENTHS, 1, 2)
    assert math.exp(own) == pytest.approx(0.2)
    assert [id for id, _ in likeliest] == [3, 2]
    assert [math.exp(chance) for _, chance in likeliest] == pytest.approx([0.4, 0.3])
