"""Guesses for a sequence that writes alone: whoever comes and whatever is guessed, no change."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import httpx2
import numpy as np
import pytest
from alphabet_model import ALPHABET
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Served, serving, user
from streamed import GOLDEN, plan
from test_scheduler import Heard, run_actions, small_steps
from test_server_command import started

from moestream.engine.drafts import Drafts
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.server.guesses import Guesses
from moestream.server.jobs import Ended, Job
from moestream.server.scheduler import Scheduler
from moestream.server.sequence import State
from moestream.streaming.options import StreamingOptions

MODELS = ("qwen3moe", "qwen3next", "gpt-oss-mxfp4", "jamba")
PROMPTS = [np.random.default_rng(17).integers(0, 128, n).tolist() for n in (9, 40, 150, 71, 64)]
FEW = tuple((token, 30.0) for token in (3, 5, 8))  # so that a text repeats itself
END = frozenset([8])
TOKENS = 26


class Alternating:
    """A constraint: an even token, then an odd one."""

    def __init__(self) -> None:
        self.made = 0

    def allowed(self) -> np.ndarray:
        return np.arange(128) % 2 == self.made % 2

    def accept(self, token: int) -> None:
        assert token % 2 == self.made % 2
        self.made += 1


def job(number: int) -> Job:
    """Greedy and sampled ones; with an end, with a constraint, with what is told of chances."""
    temperature = 0.0 if number in (0, 3) else 1.2
    params = SamplingParams(temperature=temperature, seed=number, logit_bias=FEW if number else ())
    return Job(
        prompt=PROMPTS[number],
        sampling=params,
        max_tokens=TOKENS,
        end_ids=END if number == 2 else frozenset(),
        top_logprobs=2,
        constraint=Alternating() if number == 4 else None,
    )


@cache
def engine_of(name: str) -> Engine:
    return Engine.open(GOLDEN / f"{name}.gguf", backend="cpu", threads=1, context_length=256)


def served(engine: Engine, numbers, *, routed=None, drafts=None) -> list[Heard]:
    """All of them one after the other, each alone."""
    engine.drafts, heard = drafts or Drafts("none"), [Heard() for _ in numbers]
    hears = None if routed is None else routed.append
    with Scheduler(engine, threaded=False, on_route=hears) as scheduler:
        for number, each in zip(numbers, heard, strict=True):
            scheduler.submit(job(number), each)
            while not each.over.is_set():
                scheduler.step()
    return heard


@cache
def plain(name: str, number: int):
    """What is heard of a job without guesses."""
    (heard,) = served(engine_of(name), [number])
    return heard.made, heard.events[-1].reason


class Told:
    """Guesses what will come, for any sequence, but for some tokens that it has wrong."""

    kind = "told"

    def __init__(self, name: str, counts: list[int], wrong: list[bool]) -> None:
        self.truths = [[*PROMPTS[n], *(made.token for made in plain(name, n)[0])] for n in range(5)]
        self.counts, self.wrong, self.asked = counts, wrong, count()
        self.right = self.passes = 0

    def further(self) -> None:
        return None

    def begin(self, further, expected=()):
        return self

    def guess(self, tokens, token, most):
        at, turn = len(tokens) + 1, next(self.asked)
        (truth,) = [each for each in self.truths if each[:at] == [*tokens, token]]
        found = truth[at : at + min(self.counts[turn % len(self.counts)], most)]
        wrong = [self.wrong[(turn + n) % len(self.wrong)] for n in range(len(found))]
        return [(each + 1) % 128 if bad else each for each, bad in zip(found, wrong, strict=True)]

    def passed(self, rows, drafted, right, seconds) -> None:
        assert rows > drafted >= right
        assert seconds > 0
        self.right, self.passes = self.right + right, self.passes + 1


ACTIONS = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, len(PROMPTS) - 1)),
    st.tuples(st.just("step"), st.integers(1, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
)


@pytest.mark.parametrize("name", MODELS)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    actions=st.lists(ACTIONS, min_size=3, max_size=16),
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    wrong=st.lists(st.booleans(), min_size=1, max_size=6),
)
def test_no_guess_changes_an_answer_whoever_else_is_served(name, actions, counts, wrong) -> None:
    engine = engine_of(name)
    told = Told(name, counts, wrong)
    engine.drafts = told
    with small_steps(64), Scheduler(engine, parallel=3, threaded=False) as scheduler:
        runs = run_actions(scheduler, [("submit", 2), ("submit", 1), *actions], job)
    for number, heard, ticket in runs:
        made, reason = plain(name, number)
        last = heard.events[-1]
        assert isinstance(last, Ended)
        if ticket.cancelled.is_set() and last.reason == "interrupted":
            assert heard.made == made[: len(heard.made)]
        else:
            assert (heard.made, last.reason) == (made, reason)


@pytest.mark.parametrize("name", MODELS)
def test_right_guesses_save_passes_and_wrong_ones_are_told(name: str) -> None:
    """And of routing, what is heard is what is heard without them."""
    engine, expected, routed = engine_of(name), [], []
    served(engine, [1], routed=expected)
    told = Told(name, [4], [False, False, True])
    (heard,) = served(engine, [1], routed=routed, drafts=told)
    usage = heard.events[-1].usage
    assert told.passes < TOKENS - 6
    assert usage.accepted_tokens == told.right == TOKENS - 1 - told.passes
    assert usage.drafted_tokens > usage.accepted_tokens
    assert by_layer(routed) == by_layer(expected)


def by_layer(events) -> dict[int, list]:
    found: dict[int, list] = {}
    for event in events:
        found.setdefault(event.layer, []).extend(event.expert_ids.tolist())
    return found


@pytest.mark.parametrize("name", ["qwen3moe", "qwen3next", "jamba"])
def test_what_is_run_again_is_heard_once(name: str) -> None:
    engine, expected, routed = engine_of(name), [], []
    served(engine, [1], routed=expected)
    told = Told(name, [4, 0], [False, False, True])
    (heard,) = served(engine, [1], routed=routed, drafts=told)
    assert by_layer(routed) == by_layer(expected)
    assert heard.made == plain(name, 1)[0]


def test_the_end_is_told_with_all_that_was_guessed() -> None:
    class Ending(Heard):
        def __call__(self, events) -> None:
            if isinstance(events[-1], Ended):
                self.usage = replace(events[-1].usage)
            super().__call__(events)

    engine, told, heard = engine_of("qwen3moe"), Told("qwen3moe", [4], [False]), Ending()
    engine.drafts = told
    with Scheduler(engine, threaded=False) as scheduler:
        scheduler.submit(job(1), heard)
        while not heard.over.is_set():
            scheduler.step()
    usage = heard.events[-1].usage
    for name in ("drafts", "drafted_tokens", "accepted_tokens"):
        assert getattr(heard.usage, name) == getattr(usage, name)
    assert usage.accepted_tokens == told.right


@pytest.mark.parametrize("name", ["qwen3moe", "qwen3next"])
def test_a_cache_that_guesses_were_taken_back_from_is_kept_for_others(name: str) -> None:
    engine = engine_of(name)
    engine.drafts = Told(name, [5], [False, True])
    again = [*PROMPTS[1], *(made.token for made in plain(name, 1)[0]), 7]
    more = Job(prompt=again, sampling=SamplingParams(temperature=0.0), max_tokens=9)
    with Scheduler(engine, threaded=False) as scheduler:
        for each in (job(1), more):
            heard = Heard()
            scheduler.submit(each, heard)
            if each is more:
                engine.drafts = Drafts("none")
            while not heard.over.is_set():
                scheduler.step()
        assert heard.events[-1].usage.cached_tokens >= len(PROMPTS[1])
    with Scheduler(engine, threaded=False) as scheduler:
        fresh = Heard()
        scheduler.submit(more, fresh)
        while not fresh.over.is_set():
            scheduler.step()
    assert heard.made == fresh.made


@pytest.mark.parametrize("name", ["qwen3moe", "qwen3next"])
def test_nor_does_it_matter_what_of_the_experts_is_in_memory(name: str) -> None:
    with Engine.open(
        GOLDEN / f"{name}.gguf", backend="cpu", threads=1, context_length=256
    ) as engine:
        engine.stream(plan(1 << 15), StreamingOptions())
        heard = served(engine, range(5), drafts=Told(name, [3, 7], [False, False, True]))
    for number, each in enumerate(heard):
        assert (each.made, each.events[-1].reason) == plain(name, number)


def test_those_that_write_together_are_run_as_they_are() -> None:
    engine, told = engine_of("qwen3moe"), Told("qwen3moe", [5], [False])
    engine.drafts = told
    with Scheduler(engine, threaded=False) as scheduler:
        heard = [Heard(), Heard()]
        for number, each in enumerate(heard):
            scheduler.submit(job(number), each)
        with patch.object(told, "guess", side_effect=AssertionError("others write too")):
            while not heard[0].made and not heard[1].made:
                scheduler.step()
            scheduler.step()
        while not all(each.over.is_set() for each in heard):
            scheduler.step()
    assert [each.made for each in heard] == [plain("qwen3moe", n)[0] for n in (0, 1)]


@pytest.fixture(scope="module")
def server(alphabet: Path) -> Iterator[Served]:
    with serving(alphabet) as served:
        served.model.engine.drafts = Drafts("ngram")
        yield served


def details(told) -> tuple[int, int]:
    """Guessed tokens that were right, and that were not."""
    found = told["usage"]["completion_tokens_details"]
    assert told["timings"].get("draft_n", 0) == sum(found.values())
    return found["accepted_prediction_tokens"], found["rejected_prediction_tokens"]


@pytest.mark.parametrize(
    "more", [{}, {"response_format": {"type": "regex", "pattern": "[a-f]{9}"}}]
)
def test_what_a_client_predicts_is_guessed(server: Served, more) -> None:
    plain = server.chat(**more)
    said = plain["choices"][0]["message"]["content"]
    parts = [{"type": "text", "text": ALPHABET}]
    for content in (ALPHABET, parts, "!" + ALPHABET, "nothing of it"):
        told = server.chat(prediction={"type": "content", "content": content}, **more)
        assert told["choices"] == plain["choices"]
        right, _ = details(told)
        if content in (ALPHABET, parts):
            assert right > len(said.encode()) * 2 / 5  # or more: one of each pass is sampled
    assert more or "completion_tokens_details" not in plain["usage"]


def test_what_is_guessed_is_counted(server: Served) -> None:
    before = server.get("/metrics").text
    right, wrong = details(server.chat(prediction={"content": ALPHABET[:9]}))
    assert right >= 6
    names = ("moestream_accepted_tokens_total", "moestream_drafted_tokens_total")
    for name, more in zip(names, (right, right + wrong), strict=True):
        assert counted(server.get("/metrics").text, name) == counted(before, name) + more


def counted(metrics: str, name: str) -> float:
    (line,) = [line for line in metrics.splitlines() if line.startswith(name + " ")]
    return float(line.split()[1])


def test_a_prediction_that_is_no_text_is_refused(server: Served) -> None:
    for wrong in ({"content": [{"type": "image_url"}]}, {"content": [{}]}, {"type": "x"}, "abc"):
        error = server.refused(prediction=wrong)
        assert "prediction" in str(error)


def test_serve_takes_the_option(alphabet: Path) -> None:
    body = {"messages": user("hi"), "prediction": {"content": ALPHABET}, "temperature": 0}
    with started(alphabet, "--draft", "ngram") as (_, url, _):
        told = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=30).json()
    assert details(told)[0] > 20


class Writing:
    """A sequence whose tokens are known, and which ends after the last of them."""

    def __init__(self, truth: list[int], *, at_limit: bool) -> None:
        self.truth, self.at_limit = truth, at_limit
        self.tokens, self.pending, self.state = [1], 1, State.WRITING
        self.job = SimpleNamespace(end_ids=END)
        self.usage = SimpleNamespace(drafts=0, drafted_tokens=0, accepted_tokens=0)

    def choose(self, logits: np.ndarray) -> bool:
        token = self.truth.pop(0)
        if not self.truth and self.at_limit:
            self.state = State.ENDED
        if token in END:
            self.state = State.ENDED
            return False
        self.tokens.append(token)
        return True

    def take_back(self, length: int, mark: int) -> None:
        """Nothing was run."""


@pytest.mark.parametrize(
    ("truth", "at_limit", "told"),
    [
        ([2, 3, 4, 5, 6], False, (4, 3, 3)),
        ([2, 9, 4], False, (4, 3, 1)),
        ([2, 3], True, (4, 1, 1)),  # the last token there was room for was guessed
        ([2, 9], True, (4, 3, 1)),
        ([2, 8], False, (4, 3, 1)),  # the end, where another was guessed
    ],
)
def test_what_came_of_guesses_at_an_answers_end_is_told(truth, at_limit, told) -> None:
    heard = []
    drafting = SimpleNamespace(passed=lambda *said: heard.append(said[:3]))
    guesses = Guesses(Writing(truth, at_limit=at_limit), drafting, [2, 3, 4])
    guesses.settle(np.zeros((4, 10), np.float32), None)
    assert heard == [told]
