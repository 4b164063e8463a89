"""What `moestream plan` foresees beside how fast prose is then continued, under memory caps.

Each run is a process in a memory cgroup of its own (v1 or v2; needs root), from a cold page cache,
with a budget of the cap / 1.1, in Italian or English; the plan is made for that budget and for the
context that a run has room for at first. The machine is measured anew before the first. For a
quiet machine: what else runs slows one and not the other. The last line is JSON; the exit status is
1 if a forecast is off by more than --tolerance.

    python scripts/bench/plan.py --cap 1000M --cap 700M --cap 500M
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from moestream.catalog import resolve

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import MOESTREAM, budget_under, caps_needed, mebibytes, run_reporting

LANGUAGES = ("it", "en")
CONTEXT = 1024
"""Tokens whose keys and values a run leaves room for at first."""


def run(command: list[str]) -> Any:
    """Run a command that prints JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def planned(args: argparse.Namespace, budget: str) -> dict[str, Any]:
    """What is foreseen at one budget."""
    command = [*MOESTREAM, "plan", args.model, "-c", str(CONTEXT), "--budget", budget]
    command += ["--json", *(["--trace", args.trace] if args.trace else [])]
    points = run(command)["budgets"]
    wanted = mebibytes(budget) << 20
    return next(point for point in points if point["budget_bytes"] == wanted)


def measured(args: argparse.Namespace, cap_mib: int, budget: str) -> dict[str, Any]:
    """What runs in a group with so much memory are like: medians over both languages."""
    path = resolve(args.model)
    runs = []
    for language in LANGUAGES * args.repeat:
        spec = {"model": str(path), "budget": budget, "options": {}, "language": language}
        spec |= {"tokens": args.tokens, "threads": None, "greedy": False}
        program = Path(__file__).with_name("stream_run.py")
        done = run_reporting([sys.executable, str(program), json.dumps(spec)], cap_mib, path, 120.0)
        if "error" in done:
            sys.exit(f"{spec}: {done['error']}")
        runs.append(done)
    return {key: statistics.median(r[key] for r in runs) for key in ("tps", "hit_rate")}


def compare(args: argparse.Namespace, cap: str) -> dict[str, Any]:
    """One cap: forecast, measurement, and by how much they differ."""
    cap_mib = mebibytes(cap)
    budget = budget_under(cap_mib)
    forecast, found = planned(args, budget), measured(args, cap_mib, budget)
    return {
        "cap": cap,
        "budget": budget,
        "foreseen_tps": round(forecast["tps"], 2),
        "sure_of": [round(forecast["low_tps"], 2), round(forecast["high_tps"], 2)],
        "measured_tps": round(found["tps"], 2),
        "off_by": round(forecast["tps"] / found["tps"] - 1, 3),
        "foreseen_hit_rate": forecast["hit_rate"],
        "measured_hit_rate": found["hit_rate"],
    }


def main() -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--cap", action="append", help="by default 1000M, 700M and 500M")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=2, help="runs of each language")
    parser.add_argument("--trace", help="for the plan's hit rates")
    parser.add_argument("--tolerance", type=float, default=0.3)
    args = parser.parse_args()
    run([*MOESTREAM, "plan", args.model, "--measure", "--json"])
    rows = []
    print(f"{'cap':>8} | {'foreseen':>9} | {'sure of':>15} | {'measured':>9} | {'off by':>7}")
    with caps_needed():
        for cap in args.cap or ["1000M", "700M", "500M"]:
            row = compare(args, cap)
            low, high = row["sure_of"]
            print(
                f"{cap:>8} | {row['foreseen_tps']:9.2f} | {low:6.1f} - {high:6.1f} | "
                f"{row['measured_tps']:9.2f} | {row['off_by']:+7.1%}",
                flush=True,
            )
            rows.append(row)
    worst = max(abs(row["off_by"]) for row in rows)
    print(json.dumps({"model": args.model, "worst": worst, "rows": rows}))
    sys.exit(int(worst > args.tolerance))


if __name__ == "__main__":
    main()
