"""What each rank of a test runs: on the first, models by themselves and shared must say the same.

``python rank_program.py HOW NAME...``; the last line is JSON: how many layers each rank had.
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from streamed import GOLDEN, plan, sample_tokens
from test_scheduler import Heard, job

from moestream.engine.engine import Engine
from moestream.engine.session import Session
from moestream.ranks.far import Away
from moestream.ranks.joining import SharedEngine, attend, joined, open_shared
from moestream.ranks.legs import Leg, Waiting
from moestream.ranks.link import Link
from moestream.ranks.stage import Stage
from moestream.server import passes, reading
from moestream.server.scheduler import Scheduler
from moestream.streaming.options import StreamingOptions

OPTIONS = {"backend": "cpu", "threads": 1, "context_length": 320}
BUDGETS = {
    "mapped": {"budget": "auto"},
    "pread": {"budget": "auto", "streaming": StreamingOptions(io="pread")},
    "madvise": {"budget": "auto", "streaming": StreamingOptions(io="madvise", prefetch=False)},
    "uneven": {"budget": "auto", "streaming": StreamingOptions(io="pread")},
}
"""``uneven``: of all ranks but the first."""
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
    break_off(engine, session, tokens[45:60])
    out.append(session.forward(tokens[45:50]))
    return np.concatenate(out)


def break_off(engine: Engine, session: Session, tokens: list[int]) -> None:
    """Where rows are away: the others run a pass that is none for the first rank."""
    if isinstance(engine, SharedEngine):
        waits, before = engine.model.layers[-1], engine.model.layers[-1]._sent
        assert list(session.generate(tokens, stop=lambda: waits._sent > before)) == []
        assert session.stop_reason == "interrupted"


def answers(engine: Engine) -> list[list]:
    """Of a server's sequences, which run together, and begin alike."""
    heard = [Heard() for _ in range(6)]
    with (
        patch.multiple(reading, CHUNK_TOKENS=16, _ALIKE_TOKENS=16),
        patch.multiple(passes, CHUNK_TOKENS=16),
        patch("moestream.server.scheduler._SLICE_S", 0.0),
        Scheduler(engine, threaded=False, parallel=3) as scheduler,
    ):
        for number, each in enumerate(heard, start=1):
            scheduler.submit(job(number), each)
        while not all(each.over.is_set() for each in heard):
            scheduler.step()
    return [each.made for each in heard]


def follow(link: Link, options: dict[str, Any]) -> int:
    """Do what the first rank wants; return of how many chunks the longest pass here was."""
    lengths, run = [0], Stage._run

    def counted(stage: Stage, leg: Leg, waiting: list[Waiting]) -> None:
        lengths.append(len(waiting))
        run(stage, leg, waiting)

    with patch.object(Stage, "_run", counted):
        attend(link, options, Path)
    return max(lengths)


def main(how: str, *names: str) -> None:
    link = joined()
    uneven = how == "uneven" and not link.rank
    options = OPTIONS | BUDGETS["mapped" if uneven else how if how in BUDGETS else "mapped"]
    if "streaming" in options:
        small = patch.object(Engine, "plan_memory", lambda engine, budget: plan(EXPERTS_BYTES))
        small.start()
    if link.rank:
        longest = follow(link, options)
        assert (longest > 1) == ("streaming" in options)
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
