"""What `moestream plan --machines` foresees beside what ranks on this machine measure.

python scripts/bench/rank_plan.py [MODEL] [--caps 500M,600M,1100M] [--links 40G,20us 1G,0.2ms]

Each rank has a memory cgroup of its own (needs root, on Linux) of the machine's memory, and the
budget that the plan gave it. Between ranks lies a process that holds bytes back as the link would;
a link of 40 Gbit/s is loopback itself. Ranks work in turn on what is measured, so each may have all
cores, as the plan has it. ``--write`` puts the table into docs/machines.md. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from moestream.forecast.pipeline import link_of

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import MOESTREAM, mebibytes
from bench.rank_processes import run_ranks
from docs.marked import put_table

PAGE = Path(__file__).parents[2] / "docs" / "machines.md"
BEGIN, END = "<!-- made by scripts/bench/rank_plan.py -->", "<!-- until here, of rank_plan.py -->"
LOOPBACK_GBIT = 40
HEAD = (
    "memory of each",
    "link, one way",
    "tok/s foreseen",
    "measured",
    "512 tokens foreseen, s",
    "measured",
    "hits of the first foreseen",
    "measured",
    "hop foreseen, ms",
    "measured",
    "peaks, MiB",
)

Row = dict[str, Any]


def planned(args: argparse.Namespace, cap: str, link: str) -> dict[str, Any]:
    """The forecast, as JSON tells it."""
    context = str(args.p + args.n + 1)
    command = [*MOESTREAM, "plan", args.model, "--machines", ",".join([cap] * args.ranks)]
    command += ["--link", link, "--prompt-tokens", str(args.p), "-c", context, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(args: argparse.Namespace, cap: str, link: str, budgets: list[int]) -> dict[str, Row]:
    """What the bench says of both tests, and the ranks' peaks."""
    kind = link_of(link)
    gbit = kind.bits_per_s / 1e9
    slow = (kind.latency_s * 1e3, gbit) if gbit < LOOPBACK_GBIT else (0.0, 0.0)
    shares = ",".join(f"{n_bytes >> 20}M" for n_bytes in budgets)
    command = [*MOESTREAM, "bench", args.model, "-o", "json", "-r", str(args.r)]
    command += ["-p", str(args.p), "-n", str(args.n), "--hosts-share", shares]
    ended = run_ranks(command, args.ranks, *slow, mebibytes(cap))
    peaks = [round(each.peak_bytes / (1 << 20)) for each in ended]
    return {row["test"][:2]: row | {"peaks": peaks} for row in json.loads(ended[0].out)}


def row_of(args: argparse.Namespace, cap: str, link: str) -> Row:
    """Both, side by side."""
    plan = planned(args, cap, link)
    found = measured(args, cap, link, [each["budget_bytes"] for each in plan["machines"]])
    decode, prompt = found["tg"], found["pp"]
    hits = plan["machines"][0]["hit_rate"]
    return {
        "cap": cap,
        "link": link,
        "foreseen_tps": plan["tps"],
        "foreseen_range": (plan["low_tps"], plan["high_tps"]),
        "tps": decode["avg_ts"],
        "foreseen_s": plan["prompts"][0]["ttft_s"],
        "prompt_s": args.p / prompt["avg_ts"],
        "foreseen_hits": 1.0 if hits is None else hits,
        "hits": decode["hit_rate"],
        "foreseen_hop_ms": 1e3 * plan["hop_s"],
        "hop_ms": decode["hop_ms"] / args.ranks,
        "peaks": decode["peaks"],
    }


def cells(rows: list[Row]) -> list[tuple[str, ...]]:
    """For the page, the names first."""
    lines = [HEAD]
    for row in rows:
        low, high = row["foreseen_range"]
        hits = "all" if row["hits"] is None else f"{row['hits']:.1%}"
        lines.append(
            (
                row["cap"],
                row["link"],
                f"{row['foreseen_tps']:.0f} ({low:.0f} to {high:.0f})",
                f"{row['tps']:.1f}",
                f"{row['foreseen_s']:.2f}",
                f"{row['prompt_s']:.2f}",
                "all" if row["hits"] is None else f"{row['foreseen_hits']:.1%}",
                hits,
                f"{row['foreseen_hop_ms']:.2f}",
                f"{row['hop_ms']:.2f}",
                ", ".join(map(str, row["peaks"])),
            )
        )
    return lines


def write(rows: list[Row]) -> None:
    """Put the table in its place."""
    text = PAGE.read_text("utf-8")
    PAGE.write_text(put_table(text, BEGIN, END, cells(rows)), "utf-8")


def main() -> None:
    """Foresee and measure each memory with each link."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--caps", default="500M,600M,1100M")
    parser.add_argument("--links", nargs="+", default=["40G,20us", "1G,0.2ms"])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("-p", type=int, default=512)
    parser.add_argument("-n", type=int, default=32)
    parser.add_argument("-r", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    rows = []
    for cap in args.caps.split(","):
        for link in args.links:
            rows.append(row_of(args, cap, link))
            print(rows[-1], flush=True)
    if args.write:
        write(rows)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
