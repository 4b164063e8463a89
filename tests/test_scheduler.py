"""Many sequences on one engine: whoever else is served, an answer has the bits it has alone."""

import threading
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamed import GOLDEN, plan

from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.errors import BusyError, ContextLengthError, StorageError
from moestream.server import passes, reading, sequence
from moestream.server import scheduler as module
from moestream.server.jobs import Ended, Failed, Job, Made, Reading
from moestream.server.scheduler import Scheduler
from moestream.server.sequence import SequenceRun
from moestream.streaming.options import StreamingOptions

MODELS = (
    "qwen3moe",
    "qwen3next",
    "deepseek2-v2",
    "gpt-oss-mxfp4",
    "gemma4",
    "lfm2moe",
    "qwen4exp",
    "gemma4-e",
)
PROMPTS = [np.random.default_rng(7).integers(0, 128, n).tolist() for n in (1, 5, 40, 200, 90)]
PROMPTS += [PROMPTS[3][:150] + PROMPTS[1], PROMPTS[3][:64] + PROMPTS[4]]  # that begin alike


@cache
def engine_of(name: str) -> Engine:
    return Engine.open(GOLDEN / f"{name}.gguf", backend="cpu", threads=1, context_length=320)


def job(number: int, **changes) -> Job:
    """The prompt of this number, sampled or not, and what it is to come to."""
    sampling = SamplingParams(temperature=0.0 if number % 2 else 1.5, seed=number)
    values = {"prompt": PROMPTS[number], "sampling": sampling, "max_tokens": 3 + number}
    return Job(**values | {"top_logprobs": 2} | changes)


class Heard:
    """Takes the events of one sequence."""

    def __init__(self) -> None:
        self.events = []
        self.over = threading.Event()

    def __call__(self, events) -> None:
        assert not self.over.is_set(), "something came after the last event"
        self.events += events
        if isinstance(events[-1], Ended | Failed):
            self.over.set()

    @property
    def made(self):
        return [event for event in self.events if isinstance(event, Made)]


@cache
def alone(name: str, number: int):
    """What a job comes to with an engine for itself: by a session, which knows of no batch."""
    engine, wanted = engine_of(name), job(number)
    session = engine.session()
    return list(
        session.generate(wanted.prompt, wanted.sampling, max_tokens=wanted.max_tokens)
    ), by_itself(engine, number)


def by_itself(engine: Engine, number: int):
    heard = Heard()
    with Scheduler(engine, threaded=False) as scheduler:
        scheduler.submit(job(number), heard)
        while not heard.over.is_set():
            scheduler.step()
    return heard.made


@contextmanager
def small_steps(chunk: int):
    """Passes of a few tokens that rest after each layer."""
    with (
        patch.object(reading, "CHUNK_TOKENS", chunk),
        patch.object(passes, "CHUNK_TOKENS", chunk),
        patch.object(reading, "_ALIKE_TOKENS", 16),
        patch.object(module, "_SLICE_S", 0.0),
    ):
        yield


def run_actions(scheduler: Scheduler, actions, job) -> list[tuple]:
    """Do all of them, then step to the end; return each sequence's number, events and ticket."""
    runs: list[tuple] = []
    for action, number in actions:
        if action == "submit":
            heard = Heard()
            runs.append((number, heard, scheduler.submit(job(number), heard)))
        elif action == "cancel" and number < len(runs):
            runs[number][2].cancel()
        elif action == "step":
            for _ in range(number):
                scheduler.step()
    while not all(heard.over.is_set() for _, heard, _ in runs):
        scheduler.step()
    return runs


ACTIONS = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, len(PROMPTS) - 1)),
    st.tuples(st.just("step"), st.integers(1, 6)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
)


@pytest.mark.parametrize("name", MODELS)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    actions=st.lists(ACTIONS, min_size=4, max_size=24),
    parallel=st.integers(1, 6),
    chunk=st.sampled_from([3, 17, 64]),
)
def test_an_answer_does_not_depend_on_who_else_is_served(name, actions, parallel, chunk) -> None:
    engine = engine_of(name)
    with small_steps(chunk), Scheduler(engine, parallel=parallel, threaded=False) as scheduler:
        runs = run_actions(scheduler, actions, job)
        scheduler.step()
        assert scheduler.status() == ([], 0)
    for number, heard, ticket in runs:
        tokens, made = alone(name, number)
        last = heard.events[-1]
        if ticket.cancelled.is_set() and last.reason == "interrupted":
            assert heard.made == made[: len(heard.made)]
        else:
            assert heard.made == made
            assert [event.token for event in heard.made] == tokens
            assert last.reason == "length"
            assert last.usage.generated_tokens == len(tokens)


@pytest.mark.parametrize("name", ["qwen3moe", "qwen3next"])
@pytest.mark.parametrize("options", [{}, {"prefetch": False}, {"io": "pread", "policy": "lru"}])
@pytest.mark.parametrize("experts_bytes", [1 << 15, 1 << 18])  # passes of a chunk, and of several
def test_nor_on_what_of_the_experts_is_in_memory(name: str, options, experts_bytes: int) -> None:
    with Engine.open(
        GOLDEN / f"{name}.gguf", backend="cpu", threads=2, context_length=320
    ) as engine:
        engine.stream(plan(experts_bytes), StreamingOptions(**options))
        heard = [Heard() for _ in PROMPTS]
        with small_steps(17), Scheduler(engine, parallel=3) as scheduler:
            for number, each in enumerate(heard):
                scheduler.submit(job(number), each)
            for each in heard:
                assert each.over.wait(60)
    for number, each in enumerate(heard):
        assert each.made == alone(name, number)[1]


def served(scheduler: Scheduler, *jobs: Job) -> list[Heard]:
    heard = [Heard() for _ in jobs]
    for each, wanted in zip(heard, jobs, strict=True):
        scheduler.submit(wanted, each)
    while not all(each.over.is_set() for each in heard):
        scheduler.step()
    scheduler.step()
    return heard


def usage(heard: Heard):
    return heard.events[-1].usage


def test_what_was_read_is_not_read_again() -> None:
    with Scheduler(engine_of("qwen3moe"), threaded=False) as scheduler:
        (first,) = served(scheduler, job(3))
        assert usage(first).cached_tokens == 0
        again = [*PROMPTS[3], *(event.token for event in first.made)]
        (second,) = served(scheduler, job(3, prompt=[*again, 5, 6]))
        assert usage(second).cached_tokens == len(again) - 1  # the last token was never run
        (edited,) = served(scheduler, job(3, prompt=[*PROMPTS[3][:70], 9, 9]))
        assert usage(edited).cached_tokens == 70
        (same,) = served(scheduler, job(3))
        assert usage(same).cached_tokens == len(PROMPTS[3]) - 1
        assert same.made == first.made
        (asked_not,) = served(scheduler, job(3, reuse=False))
        assert usage(asked_not).cached_tokens == 0


def test_several_of_one_prompt_read_it_once() -> None:
    with Scheduler(engine_of("qwen3moe"), parallel=8, threaded=False) as scheduler:
        heard = served(scheduler, *[job(3)] * 4)
        assert scheduler.totals.prompt_tokens == len(PROMPTS[3]) + 3
        assert all(each.made == alone("qwen3moe", 3)[1] for each in heard)


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    with small_steps(16), Scheduler(engine_of("qwen3moe"), threaded=False) as scheduler:
        heard = [Heard(), Heard()]
        scheduler.submit(job(3), heard[0])
        scheduler.step()
        scheduler.submit(job(1, max_tokens=2), heard[1])
        while not heard[1].over.is_set():
            scheduler.step()
        assert not heard[0].made
        read = [event.done for event in heard[0].events if isinstance(event, Reading)]
        assert read[-1] < len(PROMPTS[3])


def one_writes(scheduler: Scheduler, *, max_tokens: int) -> tuple[Heard, Heard]:
    """One that writes by now, and one that will have to read first."""
    writer, reader = Heard(), Heard()
    scheduler.submit(job(1, max_tokens=max_tokens), writer)
    while not writer.made:
        scheduler.step()
    scheduler.submit(job(3), reader)
    return writer, reader


def test_those_that_write_go_on_while_a_prompt_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "_TELL_S", 1e-9)  # tokens are heard one by one
    with small_steps(16), Scheduler(engine_of("qwen3moe"), threaded=False) as scheduler:
        writer, reader = one_writes(scheduler, max_tokens=200)
        before, steps = len(writer.made), 0
        while not reader.made:
            scheduler.step()
            steps += 1
        assert steps > 13
        assert len(writer.made) - before >= steps


def test_memory_of_what_is_kept_is_bounded() -> None:
    engine = engine_of("qwen3moe")
    with Scheduler(engine, threaded=False) as scheduler:
        scheduler._memory.most_bytes = scheduler._memory.kept_bytes = 2 * engine.kv_bytes(256)
        rng = np.random.default_rng(1)
        for _ in range(6):
            served(scheduler, job(3, prompt=rng.integers(0, 128, 200).tolist()))
        assert engine.caches.n_bytes <= 2 * engine.kv_bytes(256)
        assert 1 <= len(scheduler.prefixes) <= 2


def test_one_that_would_not_fit_waits_for_its_place() -> None:
    engine = engine_of("qwen3moe")
    with Scheduler(engine, threaded=False) as scheduler:
        scheduler._memory.most_bytes = engine.kv_bytes(256)
        heard = [Heard(), Heard()]
        for each in heard:
            scheduler.submit(job(3, max_tokens=9), each)
        scheduler.step()
        assert [len(part) for part in (scheduler.status()[0],)] == [1]
        while not all(each.over.is_set() for each in heard):
            scheduler.step()


@pytest.mark.parametrize(("tell_s", "calls"), [(1e-9, [1] * 8 + [2]), (1e9, [1, 9])])
def test_tokens_that_come_fast_are_told_together(
    monkeypatch: pytest.MonkeyPatch, tell_s: float, calls: list[int]
) -> None:
    monkeypatch.setattr(sequence, "_TELL_S", tell_s)
    told: list[list[object]] = []
    with Scheduler(engine_of("qwen3moe"), threaded=False) as scheduler:
        scheduler.submit(job(6, max_tokens=9), lambda events: told.append(list(events)))
        while not told or not isinstance(told[-1][-1], Ended):
            scheduler.step()
    told = [events for events in told if not isinstance(events[0], Reading)]
    assert [len(events) for events in told] == calls
    assert [event for events in told for event in events][:-1] == alone("qwen3moe", 6)[1][:9]


def test_what_cannot_be_taken_in_is_said() -> None:
    with Scheduler(engine_of("qwen3moe"), parallel=1, waiting=1, threaded=False) as scheduler:
        with pytest.raises(ContextLengthError, match="321 tokens and exceeds the available"):
            scheduler.submit(job(0, prompt=[1] * 321), Heard())
        with pytest.raises(ValueError, match="at least one"):
            scheduler.submit(job(0, prompt=[]), Heard())
        with pytest.raises(ValueError, match="0 to 127"):
            scheduler.submit(job(0, prompt=[128]), Heard())
        waiting = Heard()
        scheduler.submit(job(0), waiting)
        scheduler.submit(job(0), Heard())  # one for the place that is free, and one that waits
        with pytest.raises(BusyError):
            scheduler.submit(job(0), Heard())
    assert waiting.events[-1].reason == "interrupted"


def test_a_context_that_is_full_ends_an_answer() -> None:
    with Scheduler(engine_of("qwen3moe"), threaded=False) as scheduler:
        (heard,) = served(scheduler, job(3, max_tokens=None))
    assert heard.events[-1].reason == "context"
    assert len(heard.made) == 320 - len(PROMPTS[3]) + 1


def test_a_pass_that_fails_fails_its_sequences_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with small_steps(16), Scheduler(engine_of("qwen3moe"), threaded=False) as scheduler:
        writer, reader = one_writes(scheduler, max_tokens=30)
        scheduler._admit()
        scheduler._prompts.begin(scheduler._running)
        broken = scheduler._prompts.under_way[0].under_way

        def fail() -> bool:
            raise StorageError("the disk has gone")

        monkeypatch.setattr(broken, "advance", fail)
        while not (writer.over.is_set() and reader.over.is_set()):
            scheduler.step()
        assert isinstance(reader.events[-1], Failed)
        assert "disk" in str(reader.events[-1].error)
        assert writer.events[-1].reason == "length"
        (after,) = served(scheduler, job(3))
        assert after.made == alone("qwen3moe", 3)[1]


def test_what_should_not_happen_ends_those_that_run_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, calls = engine_of("qwen3moe"), iter(range(100))
    choose = SequenceRun.choose

    def fail_once(self, logits):
        if next(calls) == 1:
            raise RuntimeError("a bug")
        return choose(self, logits)

    monkeypatch.setattr(SequenceRun, "choose", fail_once)
    with Scheduler(engine) as scheduler:
        for ends in (Failed, Ended):
            heard = Heard()
            scheduler.submit(job(1), heard)
            assert heard.over.wait(30)
            assert isinstance(heard.events[-1], ends)
    assert heard.made == alone("qwen3moe", 1)[1]


def test_a_ban_on_all_that_a_grammar_allows_fails_its_request_alone() -> None:
    class OnlyOne:
        def allowed(self) -> np.ndarray:
            return np.arange(128) == 5

        def accept(self, token: int) -> None: ...

    with Scheduler(engine_of("qwen3moe")) as scheduler:
        for temperature, top_k in ((0.0, 40), (1.0, 0), (1.0, 40)):
            heard = Heard()
            sampling = SamplingParams(
                temperature=temperature, top_k=top_k, seed=1, logit_bias=((5, -float("inf")),)
            )
            scheduler.submit(job(1, sampling=sampling, constraint=OnlyOne()), heard)
            assert heard.over.wait(30)
            assert "no token that is allowed" in str(heard.events[-1].error)


def test_a_prompt_of_any_length_need_not_wait_for_a_longer_one() -> None:
    with small_steps(16), Scheduler(engine_of("qwen3moe"), threaded=False) as scheduler:
        heard = [Heard(), Heard()]
        scheduler.submit(job(3), heard[0])
        scheduler.step()
        scheduler.submit(job(2, prompt=PROMPTS[2][::-1], max_tokens=2), heard[1])  # of three passes
        while not heard[1].over.is_set():
            scheduler.step()
        assert not heard[0].made


def test_one_that_waits_for_a_place_does_not_hurry_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moestream.server.scheduler._SLICE_S", np.inf)
    monkeypatch.setattr(sequence, "_TELL_S", 1e-9)  # tokens are heard one by one

    def made_meanwhile(waiting: int) -> int:
        with Scheduler(engine_of("qwen3moe"), parallel=2, threaded=False) as scheduler:
            writer, reader = Heard(), Heard()
            scheduler.submit(job(1, max_tokens=300), writer)
            while not writer.made:
                scheduler.step()
            scheduler.submit(job(3), reader)
            for _ in range(waiting):
                scheduler.submit(job(0), Heard())
            before = len(writer.made)
            while not reader.made:
                scheduler.step()
            return len(writer.made) - before

    assert made_meanwhile(1) == made_meanwhile(0)


@pytest.mark.parametrize("waits", [False, True])
def test_what_is_to_be_done_between_steps_need_not_wait_for_a_prompt(
    monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    monkeypatch.setattr("moestream.server.scheduler._SLICE_S", np.inf)
    with Scheduler(engine_of("qwen3moe"), threaded=False) as scheduler:
        reader = Heard()
        scheduler.submit(job(3), reader)
        if waits:
            scheduler.call(lambda: None)
        scheduler.step()
        assert bool(reader.made) is not waits


def test_what_a_cancelled_prompt_reserved_is_given_back() -> None:
    engine = engine_of("qwen3moe")
    with small_steps(16), Scheduler(engine, threaded=False) as scheduler:
        before = engine.caches.n_bytes
        ticket = scheduler.submit(job(3), Heard())
        for _ in range(2):
            scheduler.step()
        ticket.cancel()
        scheduler.step()
        assert engine.caches.n_bytes - before <= engine.kv_bytes(1)
