"""What each rank of a test runs: on the first, models by themselves and shared must say the same.

``python rank_program.py HOW NAME...``; the last line is JSON: how many layers each rank had.
"""

import json
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
from streamed import GOLDEN, plan, sample_tokens
from test_scheduler import Heard, job

from moestream.engine.engine import Engine
from moestream.ranks.coming import Away
from moestream.ranks.joining import SharedEngine, attend, joined, open_shared
from moestream.server import passes, reading
from moestream.server.scheduler import Scheduler
from moestream.streaming.options import StreamingOptions

OPTIONS = {"backend": "cpu", "threads": 1, "context_length": 320}
BUDGETS = {
    "mapped": {"budget": "auto"},
    "pread": {"budget": "auto", "streaming": StreamingOptions(io="pread")},
    "madvise": {"budget": "auto", "streaming": StreamingOptions(io="madvise", prefetch=False)},
}
EXPERTS_BYTES = 30_000
"""Some of any model's here."""


def away(engine: Engine) -> Away:
    return engine.away if isinstance(engine, SharedEngine) else Away()


def logits(engine: Engine) -> np.ndarray:
    """Of a prompt in chunks, of tokens one by one, and of what comes after some were forgotten."""
    session, tokens = engine.session(), sample_tokens()
    out = [session.forward(tokens[:20], chunk_tokens=9)]
    out += [session.forward([token]) for token in tokens[20:26]]
    session.truncate(18)
    out.append(session.forward(tokens[18:24]))
    with patch.multiple("moestream.engine.session", CHUNK_TOKENS=7):
        waited = away(engine).waits
        for _ in session.prefill(tokens[24:50]):
            pass
        assert away(engine).waits == waited  # another chunk can begin while one is away
        stops = iter([False] * 5 + [True] * 100)
        for _ in session.prefill(tokens[50:80], stop=lambda: next(stops)):
            pass
    session.truncate(40)  # how far those came is each one's own
    out.append(session.forward(tokens[40:45]))
    return np.concatenate(out)


def answers(engine: Engine) -> list[list]:
    """Of a server's sequences, which run together, and begin alike.

    While one pass of those that write is here, another machine has another.
    """
    heard, away = [Heard() for _ in range(6)], 0
    with (
        patch.multiple(reading, CHUNK_TOKENS=16, _ALIKE_TOKENS=16),
        patch.multiple(passes, CHUNK_TOKENS=16),
        patch("moestream.server.scheduler._SLICE_S", 0.0),
        Scheduler(engine, threaded=False, parallel=3) as scheduler,
    ):
        for number, each in enumerate(heard, start=1):
            scheduler.submit(job(number, max_tokens=16), each)
        while not all(each.over.is_set() for each in heard):
            scheduler.step()
            away = max(away, len(scheduler._writer.under_way))
    assert (away > 0) == (engine.machines > 1)
    return [each.made for each in heard]


def main(how: str, *names: str) -> None:
    link = joined()
    options = OPTIONS | BUDGETS.get(how, BUDGETS["mapped"])
    if "streaming" in options:
        small = patch.object(Engine, "plan_memory", lambda engine, budget: plan(EXPERTS_BYTES))
        small.start()
    if link.rank:
        attend(link, options, Path)
        return
    run, parts = answers if how == "served" else logits, {}
    for name in names:
        path = GOLDEN / f"{name}.gguf"
        with Engine.open(path, **OPTIONS) as engine:
            alone = run(engine)
        with open_shared(link, str(path), path, options) as engine:
            together, parts[name] = run(engine), len(engine.config.part)
            mixed = any("_exps" in name for name in engine.file.tensors)
            assert (engine.streaming is not None) == (mixed and "streaming" in options)
        np.testing.assert_equal(together, alone)
    sys.stdout.write(json.dumps(parts))


if __name__ == "__main__":
    main(*sys.argv[1:])
