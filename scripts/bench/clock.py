"""The clock (``moestream simulate --clock``) beside the live engine, on the same routing.

Every live run is a process in a memory cgroup of its own (v1 or v2; needs root) that decodes
sampled text; its routing and guesses are recorded once, for they are the same in all. Guesses are
made all the time, without trials of doing without. The clock is told how long the arithmetic takes
with all experts in memory, for each instruction set and number of threads, and what the disk gave
in that very run, for it may give another speed a minute later. For a quiet machine. The last line
is JSON; the exit status is 1 if a speed is off by more than 10 % or a wait by more than 20 % and
0.3 ms.

    python scripts/bench/clock.py --model demo.gguf --cap 500M --isa avx512 --threads 2
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
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
import psutil

from moestream import Engine
from moestream.engine.options import SamplingParams
from moestream.machine.calibration import disk_costs
from moestream.policies import Decay
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions
from moestream.streaming.reader import ExpertReader
from moestream.streaming.slots import AnonymousSlots
from moestream.streaming.store import ExpertStore
from moestream.tokenizer import Tokenizer
from moestream.traces.clock.foretold import Recorded
from moestream.traces.clock.machine import ClockDisk, Work
from moestream.traces.clock.replay import Replay, Setting, Timing
from moestream.traces.clock.turns import passes_of
from moestream.traces.format import read_trace
from moestream.traces.recording import Recording

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench import heldout
from bench.capped import (
    Run,
    budget_under,
    caps_needed,
    child_command,
    main_or_child,
    mebibytes,
    run_reporting,
)

ISAS = ("avx512", "avx2", "scalar")
LIMITS = {"tps": 0.1, "stall_ms": 0.2}
_LEAST_MS = 0.3
"""Of a wait that is worth a comparison by part."""
_READ_AT_ONCE = 4
_TRIED = 34
"""Tokens after which guesses are off where nothing is waited for."""
_READS, _MOST_SPREAD = 100, 2.0
"""Of one expert alone."""
_OTHERS = 0.1
"""Of a core, that other programs may take during a run."""


def child(spec: Run) -> None:
    """One run, of a kind that ``spec`` names."""
    with Engine.open(spec["model"], context_length=2048, threads=spec["threads"]) as engine:
        print(
            json.dumps({"record": record, "work": work, "live": live}[spec["kind"]](engine, spec))
        )


def _generation(engine: Engine, spec: Run, **options: Any) -> tuple[Any, Any]:
    text = heldout.text(spec["language"])[: heldout.PROMPT_CHARACTERS]
    prompt = Tokenizer.from_gguf(engine.file).encode(text)
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
    """Seconds of a run within a plan; of guesses if all is ``warm``, before a trial without."""
    engine.stream(plan, StreamingOptions(io="direct", prefetch=warm))
    streaming = engine.streaming
    assert streaming is not None
    if warm:
        streaming.residency.warm([1.0] * len(streaming.residency.addresses))
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
    arithmetic += [time.perf_counter() - decode.stall_s for _ in made]
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
        "guess_s": float(np.median(np.array(guesses).reshape(-1, layers)[:7, :-1])) if warm else 0,
    }


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
    if (streaming := engine.streaming) and streaming.prefetcher:
        streaming.prefetcher.tries_without = False
    session, made = _generation(engine, spec)
    next(made)
    before = session.residency.decode.stall_s
    steps = sum(1 for _ in made)
    stats = session.residency
    _, bytes_per_s = max((disk_costs(engine.file) for _ in range(3)), key=itemgetter(1))
    return {
        "tps": session.stats.generation_tps,
        "stall_ms": 1e3 * (stats.decode.stall_s - before) / steps,
        "hit_rate": stats.decode.hit_rate,
        "wasted": stats.wasted_bytes,
        "experts_bytes": plan.experts_bytes,
        "bytes_per_s": bytes_per_s,
        **_one_by_one(engine),
        "bandwidth": stats.bandwidth,
        "read_bytes": stats.read_bytes,
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


def foretold(run: Run, files: list[str], ahead: int, arithmetic: Run) -> Timing:
    """What the clock says of the same."""
    trace = read_trace(files[0])
    header = trace.header
    guesses = Recorded(trace, read_trace(files[1]), ahead) if ahead else None
    setting = Setting(
        header.expert_bytes,
        header.num_experts,
        header.num_experts_per_tok,
        Decay,
        run["experts_bytes"],
        ahead,
        tries_without=False,
    )
    others = dict(arithmetic)
    disk = ClockDisk(
        0.0, run["bandwidth"], piece_cpu_s=others.pop("piece_cpu_s"), notice_s=run["notice_s"]
    )
    return Replay(setting, disk, Work(**others), guesses).run(passes_of(trace))


def compare(args: argparse.Namespace, folder: Path) -> list[Run]:
    """All runs of the table, each beside what the clock says."""
    rows = []
    for isa in args.isa:
        for threads in args.threads:
            os.environ["MOESTREAM_ISA"] = isa
            common = {
                "model": str(args.model),
                "threads": threads,
                "tokens": args.tokens,
                "language": args.language,
            }
            arithmetic = _child(args, common | {"kind": "work"}, None)
            print(json.dumps(arithmetic), flush=True)
            arithmetic.pop("others")
            for cap in args.cap:
                for ahead in args.layers_ahead:
                    spec = {"kind": "live", "budget": budget_under(mebibytes(cap))}
                    spec |= {"layers_ahead": ahead} | common
                    run = _child(args, spec, mebibytes(cap))
                    said = foretold(run, _files(args, folder), ahead, arithmetic)
                    rows.append(_row(isa, threads, cap, ahead, run, said, arithmetic))
                    print(told(rows[-1]), flush=True)
    return rows


def _files(args: argparse.Namespace, folder: Path) -> list[str]:
    names = [str(folder / f"{args.language}.{name}.csv.gz") for name in ("route", "guesses")]
    if not all(Path(name).exists() for name in names):
        spec = {"kind": "record", "model": str(args.model), "threads": os.cpu_count()}
        spec |= {"tokens": args.tokens, "language": args.language}
        _child(args, spec | dict(zip(("trace", "guesses"), names, strict=True)), None)
    return names


def _child(args: argparse.Namespace, spec: Run, cap_mib: int | None) -> Run:
    """A run that little else ran beside, or the one of some that the least did."""
    found: list[Run] = []
    while len(found) < args.tries and (not found or found[-1]["others"] > _OTHERS):
        found.append(_once(args, spec, cap_mib))
    return min(found, key=itemgetter("others"))


def _once(args: argparse.Namespace, spec: Run, cap_mib: int | None) -> Run:
    busy_s, own_s, started = _busy_s(), _own_s(), time.perf_counter()
    run = run_reporting(child_command(__file__, spec), cap_mib, args.model, args.timeout)
    if "error" in run:
        sys.exit(f"{spec}: {run['error']}")
    others_s = (_busy_s() - busy_s) - (_own_s() - own_s)
    run["others"] = others_s / (time.perf_counter() - started)
    return {key: value for key, value in run.items() if key not in ("peak_mib", "disk_bytes")}


def _own_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _busy_s() -> float:
    """Seconds of all cores that something ran, since the machine started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait)


def _row(
    isa: str, threads: int, cap: str, ahead: int, run: Run, said: Timing, arithmetic: Run
) -> Run:
    live_numbers = {key: run[key] for key in ("tps", "stall_ms", "hit_rate")}
    clock = {"tps": said.tps, "stall_ms": said.stall_ms, "hit_rate": said.counts.decode.hit_rate}
    return {
        "isa": isa,
        "threads": threads,
        "cap": cap,
        "layers_ahead": ahead,
        "live": live_numbers,
        "clock": clock,
        "off": {key: clock[key] / live_numbers[key] - 1 for key in LIMITS},
        "run": run,
        "work": arithmetic,
    }


def told(row: Run) -> str:
    """One line of the table."""
    live_numbers, clock, off = row["live"], row["clock"], row["off"]
    return (
        f"{row['isa']:>7} | {row['threads']} | {row['cap']:>5} | {row['layers_ahead']} | "
        f"{live_numbers['tps']:6.1f} | {clock['tps']:6.1f} | {off['tps']:+6.1%} | "
        f"{live_numbers['stall_ms']:5.2f} | {clock['stall_ms']:5.2f} | {off['stall_ms']:+6.1%} | "
        f"{live_numbers['hit_rate']:.4f} | {clock['hit_rate']:.4f} | {row['run']['others']:.2f}"
    )


def is_off(row: Run) -> bool:
    """Whether the clock is further from the run than it may be."""
    waits = abs(row["clock"]["stall_ms"] - row["live"]["stall_ms"])
    return abs(row["off"]["tps"]) > LIMITS["tps"] or (
        abs(row["off"]["stall_ms"]) > LIMITS["stall_ms"] and waits > _LEAST_MS
    )


def main() -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cap", action="append", help="by default 500M, 600M and 700M")
    parser.add_argument("--isa", action="append", help=f"by default {', '.join(ISAS)}")
    parser.add_argument("--threads", action="append", type=int, help="by default 1 and 2")
    parser.add_argument("--layers-ahead", action="append", type=int, help="by default 0, 1 and 2")
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--language", default="it", choices=("it", "en"))
    parser.add_argument("--work", type=Path, help="where traces are kept between runs")
    parser.add_argument("--tries", type=int, default=3, help="of a run that others ran beside")
    parser.add_argument("--timeout", type=float, default=120.0)
    args = parser.parse_args()
    args.cap = args.cap or ["500M", "600M", "700M"]
    args.isa, args.threads = args.isa or list(ISAS), args.threads or [1, 2]
    args.layers_ahead = args.layers_ahead or [0, 1, 2]
    print("    isa | t | cap | ahead | tok/s live, clock, off | stall ms | hits | cores of others")
    with tempfile.TemporaryDirectory() as folder, caps_needed():
        rows = compare(args, args.work or Path(folder))
    wrong = [row for row in rows if is_off(row)]
    print(f"{len(rows) - len(wrong)} of {len(rows)} within 10 % of speed and 20 % of wait")
    print(json.dumps({"model": args.model.name, "tokens": args.tokens, "rows": rows}))
    sys.exit(int(bool(wrong)))


if __name__ == "__main__":
    main_or_child(main, child)
