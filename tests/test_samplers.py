"""The samplers one by one, compared with llama.cpp's; and that the usual ones choose as ever."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabulary_files import unpack

from moestream.chat.breakers import breakers_of
from moestream.engine.options import SamplingParams
from moestream.engine.sampler_names import SAMPLERS, read_samplers
from moestream.engine.sampling import NO_BREAKERS, Breakers, Sampler, cuts
from moestream.engine.sampling.candidates import Candidates
from moestream.engine.sampling.chain import plain_params, steps
from moestream.engine.sampling.mirostat import Mirostat
from moestream.errors import RequestError
from moestream.gguf import GGUFFile
from moestream.tokenizer import Tokenizer

DATA = Path(__file__).parent / "data" / "sampling"
CASES = json.loads((DATA / "llama.json").read_text())["cases"]
OFF: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def logits_of(case: dict[str, Any]) -> np.ndarray:
    random = np.random.default_rng(case["seed"])
    return (random.standard_normal(case["size"]) * case["spread"]).astype(np.float32)


def params_of(case: dict[str, Any]) -> SamplingParams:
    lists = {key: tuple(each) for key, each in case["params"].items() if isinstance(each, list)}
    return SamplingParams(**OFF | case["params"] | lists, seed=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = unpack("ggml-vocab-gpt-2", tmp_path_factory.mktemp("vocabulary"))
    return Tokenizer.from_gguf(GGUFFile.open(path))


@pytest.mark.parametrize(
    "case", [c for c in CASES if "steps" not in c], ids=lambda case: json.dumps(case["params"])
)
def test_what_is_left_is_what_llama_cpp_leaves(case: dict[str, Any], tokenizer: Tokenizer) -> None:
    params, logits = params_of(case), logits_of(case)
    breakers = breakers_of(params, tokenizer)
    left = Candidates.of(logits)
    for step in steps(params, np.random.default_rng(1), breakers):
        left = step(left, case["history"])
    assert (len(left), left.ids.sum()) == (case["count"], case["sum"])
    changed = left.ids[np.float32(left.scores) != logits[left.ids]]
    assert len(changed) == case["changed"]
    scores = dict(zip(left.ids.tolist(), left.scores.tolist(), strict=True))
    for id, score in case["scores"].items():
        assert scores[int(id)] == pytest.approx(score, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize(
    "case", [c for c in CASES if "steps" in c], ids=lambda case: json.dumps(case["params"])
)
def test_mirostat_draws_from_what_llama_cpp_draws_from(case: dict[str, Any]) -> None:
    mirostat, candidates = Mirostat(params_of(case)), Candidates.of(logits_of(case))
    for step in case["steps"]:
        kept = mirostat.kept(candidates)
        assert (len(kept), kept.ids.sum()) == (step["count"], step["sum"])
        mirostat.learn(kept, step["token"])


def test_the_usual_samplers_choose_as_ever() -> None:
    found = []
    for size, spread in ((500, 3.0), (5000, 1.0), (30000, 4.0)):
        random = np.random.default_rng(size)
        logits = [(random.standard_normal(size) * spread).astype(np.float32) for _ in range(4)]
        for top_k, top_p, min_p, temperature, repeat in itertools.product(
            (0, 40), (0.95, 1.0), (0.05, 0.0), (0.8, 1.5), (1.0, 1.2)
        ):
            params = SamplingParams(
                seed=7,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                temperature=temperature,
                repeat_penalty=repeat,
                logit_bias=((3, 2.5), (9, -1.0)) if repeat > 1 else (),
            )
            sampler, history = Sampler(params), [3, 5, 9]
            for each in logits * 2:
                history.append(sampler.sample(each, history))
            found.append(history[3:])
    assert found == json.loads((DATA / "choices.json").read_text())


@pytest.mark.parametrize(
    ("params", "plain"),
    [
        ({}, True),
        ({"repeat_penalty": 1.2, "top_k": 0}, True),
        ({"samplers": ("top_k", "top_p", "temperature")}, True),
        ({"samplers": ("top_p", "top_k", "temperature")}, False),
        ({"samplers": ("temperature", "top_k")}, False),
        ({"samplers": ("temperature", "xtc")}, True),  # which is off
        ({"samplers": ("top_k",)}, True),
        ({"xtc_probability": 0.1}, False),
        ({"xtc_probability": 0.1, "xtc_threshold": 0.6}, True),
        ({"dynatemp_range": 0.1}, False),
        ({"dry_multiplier": 0.1}, False),
        ({"dry_multiplier": 0.1, "dry_penalty_last_n": 0}, True),
        ({"mirostat": 2}, False),
    ],
)
def test_the_quick_way_is_taken_where_it_comes_to_the_same(params: dict, plain: bool) -> None:
    assert (plain_params(SamplingParams(**params)) is not None) is plain


def test_what_is_not_in_the_order_is_off() -> None:
    logits = np.array([1, 2, 3, 4], np.float32)
    for order, chosen in ((("top_k",), {3}), ((), {0, 1, 2, 3}), (("temperature",), {3})):
        params = SamplingParams(**OFF | {"top_k": 1, "temperature": 0}, samplers=order, seed=2)
        sampler = Sampler(params)
        assert {sampler.sample(logits, ()) for _ in range(300)} == chosen


def test_typical_goes_above_its_share_and_top_p_reaches_it() -> None:
    two = Candidates.of(np.zeros(2, np.float32))
    assert len(cuts.typical(two, 0.5)) == 2
    assert len(cuts.top_p(two, 0.5)) == 1


def test_xtc_leaves_out_as_often_as_was_asked_for() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(SamplingParams(**OFF, xtc_probability=0.5, seed=3))
    counts = np.bincount([sampler.sample(logits, ()) for _ in range(8000)], minlength=4) / 8000
    # With it, only 0.15 and 0.05 are left: 0.75 and 0.25.
    expected = np.array([0.5, 0.3, 0.15 + 0.75, 0.05 + 0.25]) / 2
    np.testing.assert_allclose(counts, expected, atol=0.02)


def test_mirostat_comes_to_the_surprise_that_was_asked_for() -> None:
    logits = (np.random.default_rng(1).standard_normal(2000) * 2).astype(np.float32)
    chances = np.exp(logits - logits.max())
    chances /= chances.sum()
    for version in (1, 2):
        params = SamplingParams(**OFF, mirostat=version, mirostat_tau=4.0, seed=5)
        sampler = Sampler(params)
        made = [sampler.sample(logits, ()) for _ in range(500)]
        # Surprise is of what is drawn from: less than the model's own.
        surprise = -np.log2(chances[made[100:]]).mean()
        assert 4.0 < surprise < 6.5
        assert len(set(made)) > 20


def test_biases_and_ends_that_are_ignored() -> None:
    logits, ends = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32)), frozenset({3})

    def made(**params: Any) -> set[int]:
        sampler = Sampler(SamplingParams(**OFF, seed=1, **params), end_ids=ends)
        return {sampler.sample(logits, ()) for _ in range(300)}

    assert made() == {0, 1, 2, 3}
    assert made(ignore_eos=True) == {0, 1, 2}
    assert made(ignore_eos=True, logit_bias=((0, -math.inf),)) == {1, 2}
    assert made(ignore_eos=True, xtc_probability=1e-9, logit_bias=((2, 100.0),)) == {2}
    with pytest.raises(RequestError, match=r"no token 4 .* 0 to 3"):
        made(logit_bias=((4, 1.0),))


def test_breakers_of_several_tokens() -> None:
    breakers = Breakers(np.array([False] * 9 + [True]), {5: ((6, 7),), 4: ((4,), (4, 4))})
    for recent, since in (
        ([1, 2, 9, 3], 2),
        ([1, 2, 3], 3),
        ([1, 7, 6, 5, 9], 1),
        ([7, 6, 5], 0),
        ([6, 5, 1], 3),  # not all of it
        ([1, 4, 4, 4, 2], 1),  # the nearest, though a longer one begins before it
        ([4, 4, 4, 2], 0),
        ([9, 5], 0),
    ):
        assert breakers.since(np.array(recent)) == since
    assert NO_BREAKERS.since(np.array([1, 2])) == 2


def test_texts_that_break_are_found_in_tokens(tokenizer: Tokenizer) -> None:
    asked = SamplingParams(dry_multiplier=1.0, dry_sequence_breakers=("\n", " b"))
    breakers = breakers_of(asked, tokenizer)
    single = {tokenizer.token_bytes(int(id)) for id in np.flatnonzero(breakers.single)}
    assert {b"\n", b" b", b"\n\n"} <= single
    assert all(b"\n" in each or b" b" in each for each in single)
    (space,) = tokenizer.encode(" ", add_special=False)
    assert (tokenizer.encode("b", add_special=False)[0],) in breakers.longer[space]
    assert breakers_of(SamplingParams(), tokenizer) is NO_BREAKERS
    none = SamplingParams(dry_multiplier=1.0, dry_sequence_breakers=("none",))
    assert not breakers_of(none, tokenizer).single.any()


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("top_k;temperature", ("top_k", "temperature")),
        ("top-k; TEMP", ("top_k", "temperature")),
        ("kt", ("top_k", "temperature")),
        ("edskypmxt", SAMPLERS),
        (["typical_p", "nucleus", "minp"], ("typ_p", "top_p", "min_p")),
    ],
)
def test_orders_have_llama_cpps_names(text: str | list[str], order: tuple[str, ...]) -> None:
    assert read_samplers(text) == order


EXTREMES = (1e-320, 1e-6, 0.5, 1.0, 1e30, 1e308)
MANY = st.sampled_from([0.0, *EXTREMES])
SHARES = st.sampled_from([0.0, 1e-320, 0.3, 0.5, 1.0])


@settings(max_examples=150)
@given(
    **dict.fromkeys(("typical_p", "top_p", "min_p", "xtc_probability", "xtc_threshold"), SHARES),
    **dict.fromkeys(("temperature", "dynatemp_range", "dynatemp_exponent"), MANY),
    **dict.fromkeys(("dry_multiplier", "mirostat_tau", "mirostat_eta"), MANY),
    repeat_penalty=st.sampled_from(EXTREMES),
    dry_base=st.sampled_from([1.0, 1.0000001, 1.75, 1e308]),
    dry_allowed_length=st.sampled_from([0, 2, 10**9]),
    top_n_sigma=st.sampled_from([-1.0, *EXTREMES]),
    mirostat=st.sampled_from([0, 0, 1, 2]),
    samplers=st.permutations(SAMPLERS).map(tuple),
)
def test_no_settings_make_numbers_that_are_none(**params: Any) -> None:
    for widest in (3e38, 3.0):
        logits = np.array([-widest, -1, 0, 1, widest, 2], np.float32)
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            sampler = Sampler(SamplingParams(seed=1, **params))
            for _ in range(3):
                assert 0 <= sampler.sample(logits, (0, 1, 2, 4, 4, 1, 2)) < len(logits)
