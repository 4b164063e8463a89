"""One live measurement: the processes that clock.py starts, under a cap or without one.

What is recorded, how long the arithmetic takes, or how fast a run is: see ``kind`` there.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream import Engine
from moestream.engine.options import SamplingParams
from moestream.machine.calibration import disk_costs
from moestream.streaming.memory import MemoryPlan, keep_from_collector
from moestream.streaming.options import StreamingOptions
from moestream.streaming.reader import ExpertReader
from moestream.streaming.slots import AnonymousSlots
from moestream.streaming.store import ExpertStore
from moestream.tokenizer import Tokenizer
from moestream.traces.recording import Recording

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench import heldout
from bench.capped import Run

_READ_AT_ONCE = 4
_TRIED = 34
"""Tokens in which all guesses are made, before some in which none are."""
_READS, _MOST_SPREAD = 100, 2.0
"""Of one expert alone."""


def child(spec: Run) -> None:
    """One run, of a kind that ``spec`` names."""
    with Engine.open(spec["model"], context_length=2048, threads=spec["threads"]) as engine:
        print(
            json.dumps({"record": record, "work": work, "live": live}[spec["kind"]](engine, spec))
        )


def _generation(engine: Engine, spec: Run, **options: Any) -> tuple[Any, Any]:
    text = heldout.text(spec["language"])[: heldout.PROMPT_CHARACTERS]
    prompt = Tokenizer.from_gguf(engine.file).encode(text)
    keep_from_collector()
    session = engine.session()
    params = SamplingParams(temperature=0.8, seed=1)
    return session, session.generate(prompt, params, max_tokens=spec["tokens"], **options)


def record(engine: Engine, spec: Run) -> Run:
    """Write routing and guesses."""
    files = {"trace": Path(spec["trace"]), "guesses": Path(spec["guesses"])}
    with Recording(engine, **files) as recording:
        session = engine.session()
        observe = recording.observer(session)
        text = heldout.text(spec["language"])[: heldout.PROMPT_CHARACTERS]
        prompt = Tokenizer.from_gguf(engine.file).encode(text)
        params = SamplingParams(temperature=0.8, seed=1)
        made = session.generate(prompt, params, max_tokens=spec["tokens"], on_route=observe)
        return {"tokens": sum(1 for _ in made)}


def work(engine: Engine, spec: Run) -> Run:
    """Seconds of a token's parts: all experts in memory, and none; medians over tokens."""
    plan = engine.plan_memory("4G")
    there = _parts(engine, spec, plan, warm=True)
    with _reading(engine) as pieces:
        began = pieces()
        beside = _parts(engine, spec, plan, warm=True)
        per_token = (pieces() - began) / beside["seconds"] * beside["token_s"]
    room = 2 * plan.floor_bytes // engine.config.num_layers  # of what two layers ask for
    away = _parts(engine, spec, replace(plan, experts_bytes=room), warm=False)
    layers, k = there["layers"], engine.config.num_experts_per_tok
    submit_s = (away["fetch_s"] - there["fetch_s"]) / (layers * k)
    more_s = away["token_s"] - there["token_s"]
    return {
        "layer_s": there["period_s"] - there["experts_s"],
        "expert_s": there["experts_s"] / k,
        "token_s": max(there["token_s"] - layers * there["period_s"], 0.0),
        "guess_s": there["guess_s"],
        "piece_cpu_s": max(beside["token_s"] - there["token_s"], 0.0) / per_token,
        "submit_s": submit_s,
        "wake_s": max(more_s / layers - k * submit_s, 0.0),
    }


def _parts(engine: Engine, spec: Run, plan: MemoryPlan, *, warm: bool) -> Run:
    """Seconds of a run within a plan; of guesses if all is ``warm``, before some without."""
    engine.stream(plan, StreamingOptions(io="direct", prefetch=warm))
    streaming = engine.streaming
    assert streaming is not None
    if warm:
        streaming.residency.warm([1.0] * len(streaming.residency.addresses))
        streaming.prefetcher.tries_without = False
    experts, fetches = _timed(engine.backend, "moe_ffn"), _timed(streaming.residency, "fetch")
    guesses = _timed(streaming.prefetcher, "after_fetch") if streaming.prefetcher else []
    routed: list[float] = []
    began = time.perf_counter()
    _, made = _generation(
        engine,
        spec | {"tokens": _TRIED + 30},
        on_route=lambda event: routed.append(time.perf_counter()),
    )
    next(made)
    for times in (experts, fetches, guesses, routed):
        times.clear()
    decode = streaming.residency.counts.decode
    arithmetic = [time.perf_counter() - decode.stall_s]
    for step, _ in enumerate(made):
        arithmetic.append(time.perf_counter() - decode.stall_s)
        if warm:
            streaming.prefetcher.tries_without = step >= _TRIED - 2  # nothing is missed: none pay
    del engine.backend.moe_ffn
    layers = streaming.num_layers
    steps = [after - before for before, after in pairwise(arithmetic)]
    quiet = slice(_TRIED, None) if warm else slice(None)  # without guesses
    between = np.diff(np.array(routed).reshape(-1, layers), axis=1)[quiet]
    return {
        "layers": layers,
        "seconds": time.perf_counter() - began,
        "token_s": statistics.median(steps[quiet]),
        "period_s": float(np.median(between.mean(axis=1))),
        "experts_s": statistics.median(experts),
        "fetch_s": statistics.median(np.array(fetches).reshape(-1, layers).sum(axis=1).tolist()),
        "guess_s": _guess_s(np.array(guesses).reshape(-1, layers)) if warm else 0.0,
    }


def _guess_s(times: NDArray[np.float64]) -> float:
    """Of a layer, from (tokens, layers): of tokens with guesses; the last layer makes none."""
    return float(np.median(times[: _TRIED - 2, :-1]))


@contextmanager
def _reading(engine: Engine) -> Iterator[Callable[[], int]]:
    """Have experts read all the time, beside what is computed; tells how many pieces were."""
    with ExpertStore(engine.file) as store, ExpertReader(store, "direct") as reader:
        memory = AnonymousSlots(max(reader.layout.slot_bytes.values()), _READ_AT_ONCE)
        reader.hold(memory)
        keys = cycle(range(store.num_keys))
        ends = threading.Event()

        def read() -> None:
            under_way: dict[int, int] = {}
            free = list(range(_READ_AT_ONCE))
            while not ends.is_set() or under_way:
                while free and not ends.is_set():
                    under_way[key := next(keys)] = free.pop()
                    reader.submit(key, memory.slot_address(under_way[key]), False, 0)
                done = reader.wait_any(list(under_way)) if under_way else []
                for key in done:
                    reader.forget(key)
                free.extend(under_way.pop(key) for key in done)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield lambda: reader.counters()["pieces"]
        finally:
            ends.set()
            thread.join()


def _timed(owner: Any, name: str) -> list[float]:
    """Have a method's calls timed."""
    times: list[float] = []
    inner = getattr(owner, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = inner(*args, **kwargs)
        times.append(time.perf_counter() - started)
        return result

    setattr(owner, name, outer)
    return times


def live(engine: Engine, spec: Run) -> Run:
    """Speed and wait of a run within a budget, and what the disk gave in it and right after it."""
    plan = engine.plan_memory(spec["budget"])
    ahead = spec["layers_ahead"]
    options = StreamingOptions(io="direct", prefetch=ahead > 0, prefetch_layers=max(ahead, 1))
    engine.stream(plan, options)
    streaming = engine.streaming
    assert streaming is not None
    if streaming.prefetcher:
        streaming.prefetcher.tries_without = False
        streaming.prefetcher.remembered = None  # the clock is told of gates alone
    session, made = _generation(engine, spec)
    next(made)
    before = session.residency
    steps = sum(1 for _ in made)
    stats = session.residency
    # Of decoding alone: while a prompt is computed, threads that read wait for a core.
    read_bytes = stats.read_bytes - before.read_bytes
    _, bytes_per_s = max((disk_costs(engine.file) for _ in range(3)), key=itemgetter(1))
    return {
        "tps": session.stats.generation_tps,
        "stall_ms": 1e3 * (stats.decode.stall_s - before.decode.stall_s) / steps,
        "hit_rate": stats.decode.hit_rate,
        "wasted": stats.wasted_bytes,
        "experts_bytes": streaming.plan.experts_bytes,
        "bytes_per_s": bytes_per_s,
        **_one_by_one(engine),
        "bandwidth": read_bytes / (stats.read_busy_s - before.read_busy_s),
        "read_bytes": read_bytes,
    }


def _one_by_one(engine: Engine) -> Run:
    """How much the time of a piece varies, and what a read takes beside that of the disk."""
    with ExpertStore(engine.file) as store, ExpertReader(store, "direct") as reader:
        memory = AnonymousSlots(max(reader.layout.slot_bytes.values()), 1)
        reader.hold(memory)
        times, key = [], 0
        for _ in range(_READS):
            key = (key + 97) % store.num_keys
            started = time.perf_counter()
            reader.submit(key, memory.slot_address(0), False, 0)
            reader.wait_any([key])
            times.append(time.perf_counter() - started)
            reader.forget(key)
        counters = reader.counters()
        pieces = counters["pieces"] / _READS
        spread = statistics.stdev(times) / statistics.mean(times) * pieces**0.5
        return {
            "notice_s": (sum(times) - counters["busy_ns"] / 1e9) / _READS,
            "spread": min(spread, _MOST_SPREAD),
        }


if __name__ == "__main__":
    child(json.loads(sys.argv[2]))  # after --child
