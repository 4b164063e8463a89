"""What each rank of a test runs: on the first, models by themselves and shared must say the same.

``python rank_program.py HOW NAME...``; the last line is JSON: how many layers each rank had.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from streamed import GOLDEN, plan, sample_tokens
from test_scheduler import Heard, job

from moestream.engine.engine import Engine
from moestream.engine.session import Session
from moestream.profiles import Profile
from moestream.ranks.attending import attend
from moestream.ranks.coming import Away
from moestream.ranks.joining import end_process, joined, open_shared
from moestream.ranks.legs import Leg, Waiting
from moestream.ranks.link import Link
from moestream.ranks.shared_engine import SharedEngine
from moestream.ranks.stage import Stage
from moestream.server import passes, reading
from moestream.server.scheduler import Scheduler
from moestream.streaming.options import StreamingOptions
from moestream.traces.recording import Recording

OPTIONS = {"threads": 1, "context_length": 320}
BUDGETS = {
    "mapped": {"budget": "auto"},
    "pread": {"budget": "auto", "streaming": StreamingOptions(io="pread")},
    "madvise": {"budget": "auto", "streaming": StreamingOptions(io="madvise", prefetch=False)},
    "uneven": {"budget": "auto", "streaming": StreamingOptions(io="pread")},
    "profiled": {"budget": "auto", "streaming": StreamingOptions(io="pread")},
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
    with suppress(OSError), patch.object(session, "_check_file", side_effect=OSError):
        session.forward(tokens[50:60])  # which all ranks have run to its end
    out.append(session.forward(tokens[50:54]))
    return np.concatenate(out)


def profiled(engine: Engine) -> tuple[np.ndarray, Profile]:
    """The same of tokens whose uses of experts are counted, and these; not of those broken off."""
    session, tokens = engine.session(), sample_tokens()
    with Recording(engine, counting=True) as recording:
        observer = recording.observer(session)
        out = [session.forward(tokens[:20], chunk_tokens=9, on_route=observer)]
        break_off(engine, session, tokens[20:26])
        out += [session.forward([token], on_route=observer) for token in tokens[20:26]]
        assert recording.profile is not None
        return np.concatenate(out), recording.profile._counted(Path("x.json"))


def compare_profiled(link: Link, path: Path, options: dict[str, Any]) -> int:
    """Count, then begin with what was counted; return how many layers are here."""
    with Engine.open(path, **OPTIONS) as engine:
        alone, uses = profiled(engine)
    for more in ({}, {"profile": uses}):
        with open_shared(link, str(path), path, {**options, **more}) as engine:
            together, found = profiled(engine)
            layers = len(engine.config.part)
        np.testing.assert_equal(together, alone)
        assert found.layers == uses.layers
        assert uses.uses.sum(1).min() > 0
        np.testing.assert_equal(found.uses, uses.uses)
        np.testing.assert_allclose(found.decayed, uses.decayed)
    return layers


def break_off(engine: Engine, session: Session, tokens: list[int]) -> None:
    """Where rows are away: the others run a pass that is none for the first rank."""
    if isinstance(engine, SharedEngine):
        sends = engine.model.layers[-2]
        before = sends._sent
        assert list(session.generate(tokens, stop=lambda: sends._sent > before)) == []
        assert session.stop_reason == "interrupted"


def answers(engine: Engine) -> list[list]:
    """Of a server's sequences, which run together, and begin alike.

    While one pass of those that write is here, another machine has another.
    """
    heard, away, together, longest = [Heard() for _ in range(6)], 0, 0, 0
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
            writing = sum(bool(each.made) and not each.over.is_set() for each in heard)
            together = together + 1 if writing > 1 else 0
            longest = max(longest, together)
    if engine.machines == 1:
        assert not away
    elif longest > 3:  # of many layers, prompts may last longer than answers
        assert away, engine.config.architecture
    return [each.made for each in heard] + continued(engine)


def assert_polling_gives_way() -> None:
    """Threads that poll sockets leave the cores to those that compute."""
    if sys.platform == "linux":
        threads = [int(each.name) for each in Path("/proc/self/task").iterdir()]
        own, *others = sorted({os.getpriority(os.PRIO_PROCESS, each) for each in threads})
        assert others == [19]
        assert own < 19


def continued(engine: Engine) -> list[list]:
    """Of two sequences that write, and one that begins with all that the first has come to."""
    heard = [Heard() for _ in range(3)]
    with Scheduler(engine, threaded=False, parallel=3) as scheduler:
        first = scheduler.submit(job(3, max_tokens=20), heard[0])
        scheduler.submit(job(4, max_tokens=20), heard[1])
        while first.usage.generated_tokens < 6:
            scheduler.step()
        prompt = [*first.tokens, 1, 2, 3]
        scheduler.submit(job(1, prompt=prompt, max_tokens=4), heard[2])
        while not all(each.over.is_set() for each in heard):
            scheduler.step()
    assert heard[2].events[-1].usage.cached_tokens > 190
    return [each.made for each in heard]


def follow(link: Link, options: dict[str, Any]) -> tuple[int, list[int]]:
    """Do what the first rank wants.

    Return of how many chunks the longest pass here was, and with how many profiles each model was
    opened.
    """
    lengths, run = [0], Stage._run_chunks
    profiles: list[int] = []
    stream = Engine.stream

    def counted(stage: Stage, leg: Leg, waiting: list[Waiting]) -> None:
        lengths.append(len(waiting))
        run(stage, leg, waiting)

    def opened(engine: Engine, *args: Any) -> None:
        stream(engine, *args)
        profile = args[-1]
        profiles.append(0 if profile is None else 1)
        if profile is not None:
            assert profile.layers == tuple(engine.config.part), profile.layers
            assert profile.uses.sum() > 0

    with (
        patch.object(Stage, "_run_chunks", counted),
        patch.object(Engine, "stream", opened),
    ):
        attend(link, options, Path)
    return max(lengths), profiles


def main(how: str, *names: str) -> None:
    link = joined()
    assert_polling_gives_way()
    OPTIONS["backend"] = "mlx" if how == "mlx" else "cpu"
    OPTIONS["threads"] = None if how == "mlx" else 1
    uneven = how == "uneven" and not link.rank
    options = OPTIONS | BUDGETS["mapped" if uneven else how if how in BUDGETS else "mapped"]
    if "streaming" in options:
        small = patch.object(Engine, "plan_memory", lambda engine, budget: plan(EXPERTS_BYTES))
        small.start()
    if link.rank:
        longest, warmed = follow(link, options)
        if how == "profiled":
            assert warmed == [0, 1] * len(names)  # of the second time, each has its own layers'
        else:
            assert (longest > 1) == ("streaming" in options)
        return
    run, parts = answers if how == "served" else logits, {}
    for name in names:
        path = GOLDEN / f"{name}.gguf"
        if how == "profiled":
            parts[name] = compare_profiled(link, path, options)
            continue
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
    end_process(0)
