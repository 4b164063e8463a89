"""What guesses bring: runs with and without them in turn, under caps, from a cold page cache.

Every run is a process of its own in a memory cgroup of its own (v1 or v2; needs root), and both
languages are generated, sampled. All runs of a language must give the same tokens. For a quiet
machine. ``--delay-us`` stands for a slower disk: each read, of half a megabyte at most, takes so
much longer. The last line is JSON; the exit status is 1 if tokens differ.

    python scripts/bench/guesses.py --model demo.gguf --row avx512:2:500M:direct
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import Run, budget_under, caps_needed, mebibytes, run_reporting
from bench.wait_causes import CAUSES

LANGUAGES = ("it", "en")
LEVERS: dict[str, Run] = {"without": {"prefetch": False}, "with": {}}
"""What is different from the defaults."""
ROWS = (
    *(f"scalar:2:600M:{io}" for io in ("direct", "pread", "madvise")),
    *(f"avx512:2:{cap}:{io}" for cap in ("500M", "700M") for io in ("direct", "pread", "madvise")),
)
_SHOWN = ("tps", "stall_ms", "hit_rate", "token_mib", "p99_ms")


def measure(args: argparse.Namespace, row: str) -> Run:
    """All levers in turn, over and over."""
    isa, threads, cap, io = row.split(":")
    os.environ["MOESTREAM_ISA"] = isa
    runs: dict[str, list[Run]] = {lever: [] for lever in LEVERS}
    for number in range(args.repeat + 1):
        for language in args.languages:
            # Whichever runs second is slower by madvise, even if both are the same.
            for lever in list(runs)[:: 1 if number % 2 else -1]:
                spec = {
                    "model": str(args.model),
                    "budget": args.budget or budget_under(mebibytes(cap)),
                    "options": {"io": io, **LEVERS[lever]},
                    "language": language,
                    "tokens": args.tokens,
                    "threads": int(threads),
                    "greedy": False,
                    # What finds causes takes time, so not in runs whose speed counts.
                    "causes": number == args.repeat and io != "madvise",
                    "delay_s": args.delay_us / 1e6,
                }
                runs[lever].append(_run(args, spec, mebibytes(cap)))
    every = [run for done in runs.values() for run in done]
    for language in args.languages:
        found = {run["tokens"] for run in every if run["language"] == language}
        if len(found) > 1:
            sys.exit(f"{row}: guesses changed the tokens of {language}")
    told: Run = {"row": row, "languages": {}}
    for language in args.languages:
        told["languages"][language] = {
            lever: summary([run for run in done if run["language"] == language])
            for lever, done in runs.items()
        }
    return told


def _run(args: argparse.Namespace, spec: Run, cap_mib: int) -> Run:
    program = Path(__file__).with_name("stream_run.py")
    command = [sys.executable, str(program), json.dumps(spec)]
    run = run_reporting(command, cap_mib, args.model, args.timeout)
    if "error" in run:
        sys.exit(f"{spec}: {run['error']}")
    return {**run, "language": spec["language"]}


def summary(runs: list[Run]) -> Run:
    """Medians of what is shown, and why the last run waited."""
    *timed, last = runs
    found: Run = {key: statistics.median(run[key] for run in timed) for key in _SHOWN}
    found["all"] = [(round(run["tps"], 2), round(run["stall_ms"], 2)) for run in timed]
    if "causes_ms" in last:
        found["causes_ms"] = last["causes_ms"]
    return found


def ratios(without: list[tuple[float, float]], found: list[tuple[float, float]]) -> list[float]:
    """Of speeds and of waits: medians over runs that were made one after the other.

    A machine's speed may change by more between two rounds than by what is looked for.
    """
    pairs = list(zip(without, found, strict=True))
    return [statistics.median(b[i] / a[i] for a, b in pairs) for i in (0, 1)]


def table(measured: list[Run]) -> str:
    """What docs/performance.md shows: speeds and waits, then why there still are waits."""
    lines = [
        "| kernels, threads | cap | read by | text | tok/s | | waits, ms | | MiB a token |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    why = [
        "| kernels | cap | read by | text | guesses | first layer | not guessed | late | queue |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in measured:
        isa, threads, cap, io = each["row"].split(":")
        for language, levers in each["languages"].items():
            without, found = (levers[lever] for lever in LEVERS)
            faster, waits = ratios(without["all"], found["all"])
            lines.append(
                f"| {isa}, {threads} | {cap} | {io} | {language} "
                f"| {without['tps']:.1f} to {found['tps']:.1f} | {faster - 1:+.0%} "
                f"| {without['stall_ms']:.1f} to {found['stall_ms']:.1f} | x {waits:.2f} "
                f"| {without['token_mib']:.1f} to {found['token_mib']:.1f} |"
            )
            for lever, row in levers.items():
                if "causes_ms" in row:
                    cells = " | ".join(f"{row['causes_ms'][cause]:.2f}" for cause in CAUSES)
                    why.append(
                        f"| {isa}, {threads} | {cap} | {io} | {language} | {lever} | {cells} |"
                    )
    return "\n".join([*lines, "", *why])


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--row", action="append", help="ISA:THREADS:CAP:IO; may be repeated")
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    parser.add_argument("--repeat", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--delay-us", type=float, default=0, help="that each read takes longer")
    parser.add_argument("--budget", help="by default the cap / 1.1")
    parser.add_argument("--timeout", type=float, default=120.0)
    args = parser.parse_args()
    args.languages = args.languages.split(",")
    measured = []
    with caps_needed():
        for row in args.row or ROWS:
            measured.append(measure(args, row))
            print(json.dumps(measured[-1]), flush=True)
    print(table(measured))
    print(json.dumps({"model": args.model.name, "tokens": args.tokens, "rows": measured}))


if __name__ == "__main__":
    main()
