"""What a later rank does with rows of several prompts at once, without another rank."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
from streamed import GOLDEN, plan

from moestream.engine import streamed_passes
from moestream.engine.engine import Engine
from moestream.layers.moe import MoE
from moestream.ranks.message import Kind, Message
from moestream.ranks.stage import Stage
from moestream.streaming.options import StreamingOptions

PATH = GOLDEN / "qwen3moe.gguf"
OPTIONS = {"threads": 1, "context_length": 512, "budget": "auto", "part": range(1, 2)}
CACHES, CHUNKS, ROWS, FREE = 4, 2, 200, 100_000
MOST_ROWS = 512
"""Of a pass: the memory here is for fewer, and one chunk there always is."""


class Out:
    """A link of which nothing is heard."""

    rank, size = 1, 2

    def __init__(self):
        self.sent = []
        self.came = weakref.WeakValueDictionary()
        """Rows that are still in memory, by message."""

    def name(self, rank):
        return f"rank {rank}"

    def send(self, message):
        self.sent.append(message)


def told(engine: Engine, chunk: int, number: int, *, wanted: bool) -> Message:
    tokens = 1 if wanted else ROWS
    rows = np.random.default_rng(10 * chunk + number).normal(size=(tokens, engine.config.row_size))
    body = {
        "n": 10 * chunk + number,
        "done": [] if chunk else [["new", number, None, 0]],
        "parts": [(number, tokens, chunk * ROWS)],
        "after": chunk * ROWS,
        "more": not wanted,
        "mark": 0,
        "wanted": wanted,
        "counts": False,
        "busy_s": 0.0,
    }
    return Message(Kind.RUN, body, rows.astype(np.float32))


def noted(out: Out, message: Message) -> Message:
    out.came[message.body["n"]] = message.rows
    return message


class Middle(Out):
    """One that a rank behind hears, and no sooner than it has asked what memory is counted."""

    size = 3

    def __init__(self, engine):
        super().__init__()
        self._engine, self._was = engine, None
        self.counted = []

    def send(self, message):
        if message.rows is not None:
            assert self._was is None or self._was() is None  # what was sent before has gone
            self._was = weakref.ref(message.rows)
            self.sent.append(message.body["n"])
            self.counted.append(self._engine.streaming._rows_bytes)


def run(engine: Engine) -> tuple[list[np.ndarray], list[int]]:
    """The last rows of prompts that go on in turn, and how many rows waited after each chunk."""
    out, waited = Out(), []

    def end_rows(moe):
        """When all rows have gone through a layer: those that came are those that wait."""
        waiting = sum(leg.waiting_rows for leg in stage._legs.values())
        assert sum(map(len, out.came.values())) == waiting
        original(moe)

    original = MoE.end_rows
    with Stage(engine, out) as stage, patch.object(MoE, "end_rows", end_rows):
        for chunk in range(CHUNKS + 1):
            for number in range(1, CACHES + 1):
                stage.do(noted(out, told(engine, chunk, number, wanted=chunk == CHUNKS)))
                waited.append(sum(leg.waiting_rows for leg in stage._legs.values()))
                if engine.streaming is not None:
                    held = max(4 * engine.config.row_size * waited[-1] - FREE, 0)
                    assert engine.streaming._rows_bytes == held
    return [message.rows for message in out.sent if message.kind is Kind.ROWS], waited


@contextmanager
def streamed() -> Iterator[Engine]:
    with (
        patch.object(Engine, "plan_memory", lambda engine, budget: plan(30_000)),
        patch.object(streamed_passes, "_FREE_ROWS_BYTES", FREE),
        Engine.open(PATH, **OPTIONS, streaming=StreamingOptions(io="pread")) as engine,
    ):
        yield engine


def test_several_prompts_wait_in_the_memory_of_one():
    with Engine.open(PATH, **OPTIONS) as engine:
        expected, waited = run(engine)
        assert max(waited) == 0
    with streamed() as engine:
        found, waited = run(engine)
    assert 2 * ROWS in waited
    assert max(waited) <= MOST_ROWS
    assert len(found) == CACHES
    np.testing.assert_array_equal(found, expected)


def test_rows_are_counted_until_they_are_sent():
    with streamed() as engine:
        out = Middle(engine)
        with Stage(engine, out) as stage:
            for chunk in range(CHUNKS + 1):
                stage.do(told(engine, chunk, 1, wanted=chunk == CHUNKS))
        held = 4 * engine.config.row_size * CHUNKS * ROWS - FREE
        assert held > 0
        assert out.counted == [held, held, 0]
        assert engine.streaming._rows_bytes == 0
    assert out.sent == [1, 11, 21]
