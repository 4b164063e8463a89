"""What a later rank does with rows of several prompts at once, without another rank."""

from unittest.mock import patch

import numpy as np
from streamed import GOLDEN, plan

from moestream.engine import streamed_passes
from moestream.engine.engine import Engine
from moestream.ranks.message import Kind, Message
from moestream.ranks.stage import Stage
from moestream.streaming.options import StreamingOptions

CACHES, CHUNKS, ROWS, FREE = 4, 2, 200, 100_000
MOST_ROWS = 512
"""Of a pass: the memory here is for fewer, and one chunk there always is."""


class Out:
    """A link of which nothing is heard."""

    rank, size = 1, 2

    def __init__(self):
        self.sent = []

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


def run(engine: Engine) -> tuple[list[np.ndarray], list[int]]:
    """The last rows of prompts that go on in turn, and how many rows waited after each chunk."""
    out, waited = Out(), []
    with Stage(engine, out) as stage:
        for chunk in range(CHUNKS + 1):
            for number in range(1, CACHES + 1):
                stage.do(told(engine, chunk, number, wanted=chunk == CHUNKS))
                waited.append(sum(leg.waiting_rows for leg in stage._legs.values()))
                if engine.streaming is not None:
                    held = max(4 * engine.config.row_size * waited[-1] - FREE, 0)
                    assert engine.streaming._rows_bytes == held
    return [message.rows for message in out.sent if message.kind is Kind.ROWS], waited


def test_several_prompts_wait_in_the_memory_of_one():
    options = {"threads": 1, "context_length": 512, "budget": "auto", "part": range(1, 2)}
    path = GOLDEN / "qwen3moe.gguf"
    with Engine.open(path, **options) as engine:
        expected, waited = run(engine)
        assert max(waited) == 0
    with (
        patch.object(Engine, "plan_memory", lambda engine, budget: plan(30_000)),
        patch.object(streamed_passes, "_FREE_ROWS_BYTES", FREE),
        Engine.open(path, **options, streaming=StreamingOptions(io="pread")) as engine,
    ):
        found, waited = run(engine)
    assert 2 * ROWS in waited
    assert max(waited) <= MOST_ROWS
    assert len(found) == CACHES
    np.testing.assert_array_equal(found, expected)
