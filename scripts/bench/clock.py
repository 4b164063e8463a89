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
import sys
import tempfile
import time
from operator import itemgetter
from pathlib import Path

import psutil

from moestream.policies import Decay
from moestream.traces.clock.foretold import Recorded
from moestream.traces.clock.machine import ClockDisk, Work
from moestream.traces.clock.replay import Replay, Setting, Timing
from moestream.traces.clock.turns import passes_of
from moestream.traces.format import read_trace

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import (
    Run,
    budget_under,
    caps_needed,
    child_command,
    mebibytes,
    run_reporting,
)

_RUN = Path(__file__).with_name("clock_run.py")
ISAS = ("avx512", "avx2", "scalar")
LIMITS = {"tps": 0.1, "stall_ms": 0.2}
_LEAST_MS = 0.3
"""Of a wait that is worth a comparison by part."""
_OTHERS = 0.1
"""Of a core, that other programs may take during a run."""


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
    run = run_reporting(child_command(str(_RUN), spec), cap_mib, args.model, args.timeout)
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
    main()
