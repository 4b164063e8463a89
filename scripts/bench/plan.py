"""What `moestream plan` foresees beside what `moestream bench` then measures, under memory caps.

Each bench is a process in a memory cgroup of its own (v1 or v2; needs root), from a cold page
cache, with a budget of the cap / 1.1; the plan is made for that budget and for the context that
the bench has. The machine is measured anew before the first. For a quiet machine: what else runs
slows one and not the other. The last line is JSON; the exit status is 1 if a forecast is off by
more than --tolerance.

    python scripts/bench/plan.py --cap 1000M --cap 700M --cap 500M
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from moestream.catalog import resolve
from moestream.streaming.page_cache import drop_pages

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import MOESTREAM, budget_under, caps_needed, mebibytes
from bench.cgroups import cgroup


def run(command: list[str]) -> Any:
    """Run a command that prints JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def planned(args: argparse.Namespace, budget: str) -> dict[str, Any]:
    """What is foreseen at one budget."""
    command = [*MOESTREAM, "plan", args.model, "-c", str(args.tokens + 1), "--budget", budget]
    command += ["--json", *(["--trace", args.trace] if args.trace else [])]
    points = run(command)["budgets"]
    wanted = mebibytes(budget) << 20
    return next(point for point in points if point["budget_bytes"] == wanted)


def measured(args: argparse.Namespace, cap_mib: int, budget: str) -> dict[str, Any]:
    """What a bench measures in a group with so much memory."""
    command = [*MOESTREAM, "bench", args.model, "-p", "0", "-n", str(args.tokens)]
    command += ["-r", str(args.repeat), "--budget", budget, "-o", "json"]
    drop_pages([resolve(args.model)])
    with cgroup("memory") as group:
        group.limit_memory(cap_mib << 20)
        (row,) = run(group.enter(command))
    return dict(row)


def compare(args: argparse.Namespace, cap: str) -> dict[str, Any]:
    """One cap: forecast, measurement, and by how much they differ."""
    cap_mib = mebibytes(cap)
    budget = budget_under(cap_mib)
    forecast, row = planned(args, budget), measured(args, cap_mib, budget)
    return {
        "cap": cap,
        "budget": budget,
        "foreseen_tps": round(forecast["tps"], 2),
        "sure_of": [round(forecast["low_tps"], 2), round(forecast["high_tps"], 2)],
        "measured_tps": round(row["avg_ts"], 2),
        "measured_stddev": round(row["stddev_ts"], 2),
        "off_by": round(forecast["tps"] / row["avg_ts"] - 1, 3),
        "foreseen_hit_rate": forecast["hit_rate"],
        "measured_hit_rate": row["hit_rate"],
        "io": row["io"],
    }


def main() -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--cap", action="append", help="by default 1000M, 700M and 500M")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=7)
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
