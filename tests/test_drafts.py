"""Tokens guessed ahead: whatever is guessed, an answer and what is heard of it are the same."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamed import GOLDEN

from moestream.engine import session as sessions
from moestream.engine import timeline
from moestream.engine.drafts import Drafts
from moestream.engine.drafts.ngrams import Ngrams
from moestream.engine.drafts.paying import Option, Paying
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.engine.sampling import Sampler
from moestream.errors import TraceError, UnsupportedModelError
from moestream.streaming.options import StreamingOptions
from moestream.traces.cache_recorder import CacheRecorder

# Attention, windows, latent attention, and states of four kinds that cannot be taken back.
MODELS = (
    "qwen3moe",
    "gpt-oss-mxfp4",
    "deepseek2-v2",
    "qwen3next",
    "lfm2moe",
    "jamba",
    "minimax-01",
    "qwen4exp",
    "glm5-next",
    "gemma4-e",
)
PROMPT = np.random.default_rng(11).integers(0, 128, 70).tolist()
FEW = tuple((token, 30.0) for token in (3, 5, 8))  # so that a text repeats itself
SAMPLING = (
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=0.0, logit_bias=FEW),
    SamplingParams(temperature=1.5, top_k=0, seed=3),
    SamplingParams(seed=4, logit_bias=FEW, repeat_penalty=1.3, frequency_penalty=0.2),
    SamplingParams(seed=5, logit_bias=FEW, dry_multiplier=0.8, xtc_probability=0.5),
    SamplingParams(seed=6, mirostat=2, logit_bias=FEW),
)
TOKENS = 40


@cache
def engine_of(name: str) -> Engine:
    return Engine.open(GOLDEN / f"{name}.gguf", backend="cpu", threads=1, context_length=128)


class Hears(Sampler):
    """A sampler that tells by which logits it chose."""

    heard: list = []  # noqa: RUF012

    def sample(self, logits, history):
        self.heard.append((logits.tobytes(), tuple(history)))
        return super().sample(logits, history)


class Told:
    """Guesses what will come, but for some tokens that it has wrong."""

    kind = "told"

    def __init__(self, truth: list[int], counts: list[int], wrong: list[bool]) -> None:
        self.truth, self.counts, self.wrong = truth, counts, wrong
        self.passes = self.right = 0
        self.told: list[tuple[int, int, int]] = []

    def begin(self, further, expected=()):
        return self

    def further(self):
        return None

    def guess(self, tokens, token, most):
        at = len(tokens) + 1 - len(PROMPT)
        count = self.counts[self.passes % len(self.counts)]
        wrong = (self.wrong * 16)[self.passes : self.passes + count]
        found = zip(self.truth[at : at + min(count, most)], wrong, strict=False)
        return [(token + 1) % 128 if bad else token for token, bad in found]

    def passed(self, rows, drafted, right, seconds):
        self.passes, self.right = self.passes + 1, self.right + right
        self.told.append((rows, drafted, right))


def answer(engine: Engine, params: SamplingParams, drafts, monkeypatch, *, most=TOKENS, leave=None):
    """All that there is to know of an answer, and of one more after it."""
    engine.drafts, Hears.heard, routed = drafts, [], []

    def on_route(event):
        routed.append((len(session.tokens), event.layer, event.expert_ids.tolist()))

    session = engine.session()
    made = []
    with monkeypatch.context() as patched:
        patched.setattr(sessions, "Sampler", Hears)
        for token in session.generate(PROMPT, params, max_tokens=most, on_route=on_route):
            made.append((token, len(session.tokens), session.passes))
            if len(made) == leave:
                break
    heard, tokens = Hears.heard, list(session.tokens)
    again = session.forward([9, 8, 7]).tobytes()
    session.truncate(len(PROMPT))
    more = session.forward([1, 2]).tobytes()
    reason = session.stop_reason if leave is None else "left"
    return made, heard, tokens, routed, reason, again, more


@cache
def plain(name: str, which: int, most: int, leave: int | None):
    with pytest.MonkeyPatch.context() as patched:
        drafts, params = Drafts("none"), SAMPLING[which]
        return answer(engine_of(name), params, drafts, patched, most=most, leave=leave)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=10, deadline=None)
@given(
    which=st.integers(0, len(SAMPLING) - 1),
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    wrong=st.lists(st.booleans(), min_size=1, max_size=8),
    most=st.sampled_from([1, 2, TOKENS]),
    leave=st.sampled_from([None, 1, 7]),
)
def test_no_guess_changes_anything(name, which, counts, wrong, most, leave) -> None:
    expected = plain(name, which, most, leave)
    truth = [token for token, *_ in plain(name, which, TOKENS, None)[0]]
    told = Told(truth, counts, wrong)
    with pytest.MonkeyPatch.context() as patched:
        found = answer(engine_of(name), SAMPLING[which], told, patched, most=most, leave=leave)
    for one, other in zip(found, expected, strict=True):
        assert one == other
    if not any(wrong) and max(counts) > 0 and most == TOKENS and leave is None:
        assert told.right > 0


@pytest.mark.parametrize("name", ["qwen3moe", "qwen3next"])
@pytest.mark.parametrize("kind", ["ngram", "auto"])
@pytest.mark.parametrize("which", [1, 3])
def test_what_the_text_says_of_itself_changes_nothing(name, kind, which, monkeypatch) -> None:
    engine, drafts = engine_of(name), Drafts(kind)
    found = answer(engine, SAMPLING[which], drafts, monkeypatch)
    assert found == plain(name, which, TOKENS, None)


@pytest.mark.parametrize(
    ("wrong", "most", "end", "told"),
    [
        ([False], 7, None, (6, 5, 5)),  # the last token follows all guesses
        ([False], 3, None, (2, 1, 1)),
        ([False], 40, 3, (6, 2, 2)),  # the end was guessed, what comes after it was not looked at
        ([False, True], 3, None, (2, 1, 1)),
        ([False, True], 40, 2, (6, 2, 1)),
        ([False, False, True], 4, None, (3, 2, 2)),
        ([True], 40, 1, (6, 1, 0)),
    ],
)
def test_what_came_of_the_last_pass_is_told(wrong, most, end, told) -> None:
    engine, params = engine_of("qwen3moe"), SAMPLING[2]
    truth = [token for token, *_ in plain("qwen3moe", 2, TOKENS, None)[0]]
    assert len(set(truth[:7])) == 7
    ends = frozenset() if end is None else frozenset({truth[end]})
    for leave in (None, end):  # at an end of the model's own, and where its reader has enough
        engine.drafts = guesses = Told(truth, [5], wrong)
        written = engine.session().generate(
            PROMPT, params, max_tokens=most, end_ids=ends if leave is None else frozenset()
        )
        made = list(written) if leave is None else [next(written) for _ in range(leave + 1)]
        written.close()
        assert made == truth[: len(made)]
        assert guesses.told == [told]


def test_right_guesses_save_passes() -> None:
    engine, params = engine_of("qwen3moe"), replace(SAMPLING[1], logit_bias=((3, 99.0),))
    engine.drafts = Drafts("ngram")
    session = engine.session()
    assert list(session.generate(PROMPT, params, max_tokens=TOKENS)) == [3] * TOKENS
    stats = session.stats
    assert stats.accepted_tokens > TOKENS / 2
    assert stats.generation_steps == TOKENS - 1
    assert stats.drafted_tokens >= stats.accepted_tokens


@pytest.mark.parametrize("name", ["qwen3moe", "qwen3next", "jamba"])
def test_wrong_guesses_cost_their_own_rows_and_leave_nothing(name: str, monkeypatch) -> None:
    """Nothing is run again: the state after the token before them is kept."""
    engine, rows, kept = engine_of(name), [], []
    begin = timeline.begin_pass

    def counted(streaming, model, kv_bytes, ids, chunks):
        rows.append(len(ids))
        return begin(streaming, model, kv_bytes, ids, chunks)

    monkeypatch.setattr(timeline, "begin_pass", counted)
    truth = [token for token, *_ in plain(name, 0, TOKENS, None)[0]]
    for drafts in (Drafts("none"), Told(truth, [2], [True] * 8)):
        engine.drafts = drafts
        rows.clear()
        session = engine.session()
        list(session.generate(PROMPT, SAMPLING[0], max_tokens=TOKENS))
        kept.append(sorted(session.cache.snapshots))
    assert rows[1:] == [*[3] * (TOKENS - 3), 2, 1]
    assert kept[0] == kept[1]


def test_a_full_context_ends_an_answer_where_it_did() -> None:
    engine, params = engine_of("qwen3next"), replace(SAMPLING[1], logit_bias=((3, 99.0),))
    lengths = []
    for kind in ("none", "ngram"):
        engine.drafts = Drafts(kind)
        session = engine.session()
        lengths.append((len(list(session.generate(PROMPT, params))), len(session.tokens)))
        assert session.stop_reason == "context"
    assert lengths[0] == lengths[1] == (128 - len(PROMPT) + 1, 128)


def test_a_backend_that_rounds_by_the_batch_guesses_nothing() -> None:
    path = GOLDEN / "qwen3moe.gguf"
    with pytest.raises(UnsupportedModelError, match="--draft ngram does not work with --backend r"):
        Engine.open(path, backend="reference", draft="ngram")
    with Engine.open(path, backend="reference", draft="auto") as engine:
        assert engine.drafts.kind == "none"


def test_contents_of_the_cache_are_of_single_tokens(tmp_path) -> None:
    with (
        Engine.open(
            GOLDEN / "qwen3moe.gguf", draft="ngram", budget="1M", streaming=StreamingOptions()
        ) as engine,
        pytest.raises(TraceError, match="--draft none"),
    ):
        CacheRecorder(tmp_path / "cache.csv", engine)


def follow(text: list[int]) -> Ngrams:
    ngrams = Ngrams()
    ngrams.add(text)
    return ngrams


def test_a_text_goes_on_as_where_its_end_stood_before() -> None:
    assert follow([1, 2, 3, 4, 5, 6, 7, 1, 2, 3]).guess(3) == [4, 5, 6]
    assert follow([1, 2, 3, 4]).guess(3) == []
    longer = [7, 1, 2, 3, 4, 70, 6, 2, 3, 4, 0, 8, 1, 2, 3, 5, 50, 1, 2, 3, 4]
    assert follow(longer).guess(1) == [70]  # as after 1 2 3 4, not as after 6 2 3 4
    assert follow([7, 7, 7, 7]).guess(5) == [7] * 5
    assert follow([1, 2, 3, 1, 2, 3]).guess(7) == [1, 2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize("name", [[50], [50, 51, 52], []])
def test_a_copy_is_taken_up_again_behind_what_was_changed(name: list[int]) -> None:
    before, after = list(range(10)), list(range(20, 30))
    text = [*before, 40, 41, *after, 99, *before, *name, after[0]]
    assert follow(text).guess(3) == after[1:4]


def test_a_copy_that_was_left_for_good_is_forgotten() -> None:
    source, other = list(range(20)), list(range(60, 90))
    assert follow([*source, 99, *source[:8], *other, 9]).guess(3) == []


class Machine:
    """A clock of passes, and a text whose guesses are right by some chance."""

    def __init__(self, one_s: float, further: float, chance: float, seed: int = 0) -> None:
        self.one_s, self.further, self.chance = one_s, further, chance
        self.random = np.random.default_rng(seed)
        self.tokens, self.spent_s = 0, 0.0

    def run(self, paying: Paying, tokens: int, kind: int = 8) -> float:
        """Seconds a token, by what a token without guesses takes."""
        while self.tokens < tokens:
            _, drafted = paying.choose([Option(kind, 15)])
            seconds = self.one_s * (1 + self.further * drafted) * self.random.uniform(0.8, 1.2)
            right = 0
            while right < drafted and self.random.random() < self.chance:
                right += 1
            self.tokens, self.spent_s = self.tokens + 1 + right, self.spent_s + seconds
            paying.passed(kind, 1 + drafted, drafted, right, seconds)
        return self.spent_s / self.tokens / self.one_s


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("further", "chance"), [(0.3, 0.0), (0.5, 0.3), (1.0, 0.9), (2.5, 1.0)])
def test_auto_loses_little_where_guesses_do_not_pay(further: float, chance: float, seed) -> None:
    machine = Machine(0.01, further, chance, seed)
    slower = machine.run(Paying(lambda kind: 0.85), 400)
    assert slower < 1.03 * Machine(0.01, 0, 0, seed).run(Paying(lambda kind: 0.0), 400)


@pytest.mark.parametrize(("further", "chance", "most"), [(0.2, 0.95, 0.55), (0.3, 0.8, 0.8)])
def test_auto_gains_where_they_do(further: float, chance: float, most: float) -> None:
    assert Machine(0.01, further, chance).run(Paying(lambda kind: 0.6), 400) < most


def test_auto_notices_that_they_have_begun_to_pay() -> None:
    paying = Paying(lambda kind: 0.6)
    Machine(0.01, 0.3, 0.0).run(paying, 300)
    assert Machine(0.01, 0.3, 0.95).run(paying, 1500) < 0.75
    assert Machine(0.01, 0.3, 0.0).run(paying, 1000) < 1.03  # and that they have ceased to


def test_auto_does_not_stake_what_another_programs_pause_took() -> None:
    paying = Paying(lambda kind: 0.85)
    for _ in range(20):
        paying.passed(8, 1, 0, 0, 0.01)
    paying.passed(8, 3, 2, 2, 60.0)
    assert Machine(0.01, 0.2, 0.95).run(paying, 1000) < 0.7


@pytest.mark.parametrize("seed", range(4))
def test_auto_does_not_lose_in_an_answer_what_it_gained_in_others(seed: int) -> None:
    paying = Paying(lambda kind: 0.85)
    assert Machine(0.01, 0.2, 0.95, seed).run(paying, 3000) < 0.6
    paying.begin()
    slower = Machine(0.01, 0.2, 0.0, seed).run(paying, 200)
    assert slower < 1.03 * Machine(0.01, 0, 0, seed).run(Paying(lambda kind: 0.0), 200)


@pytest.mark.parametrize(
    ("own", "text", "takes", "expected"),
    [(0.9, 0.2, 0.1, 0), (0.2, 0.9, 0.1, 8), (0.9, 0.2, 1.5, None), (0.2, 0.2, 0.1, None)],
)
def test_auto_takes_what_pays_more(own: float, text: float, takes: float, expected) -> None:
    """Guesses of the model's own layer, kind 0, cost time of their own."""
    paying, random, chosen = Paying(lambda kind: 0.6), np.random.default_rng(3), []
    for _ in range(1500):
        kind, drafted = paying.choose([Option(8, 9), Option(0, 4, paying.own_s)])
        right, chance = 0, text if kind else own
        while right < drafted and random.random() < chance:
            right += 1
        guess_s = takes * 0.01 * drafted * (not kind)
        if guess_s:
            paying.made_own(drafted, guess_s)
        paying.passed(kind, 1 + drafted, drafted, right, 0.01 * (1 + 0.2 * drafted), guess_s)
        chosen.append(kind if drafted else None)
    later = chosen[500:]
    assert max(set(later), key=later.count) == expected
    assert later.count(expected) > 0.85 * len(later)


@pytest.mark.parametrize(("guess_s", "tries"), [(0.0, True), (0.001, False)])
def test_auto_counts_what_guessing_takes(guess_s: float, tries: bool) -> None:
    paying = Paying(lambda kind: 0.85)
    for _ in range(40):
        paying.passed(8, 1, 0, 0, 0.01, guess_s)
    assert (paying.choose([Option(8, 15)])[1] > 0) is tries
