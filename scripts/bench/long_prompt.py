"""Reading a long prompt with little memory, beside with all: speed, and bytes of experts read.

python scripts/bench/long_prompt.py MODEL --budget 700M,500M [--tokens 4096] [--disk 500]

Each run is a process of its own; all in turn, medians of ``--repeat``. With all in memory the page
cache is warm, with a budget it is cold, and no expert is in memory at first. ``read_share`` is what
was read in prefill beside all experts' bytes: by the engine's own count, and by the kernel's of the
process. ``--disk`` slows the disk down to so many decimal megabytes a second in further runs (root,
on Linux). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import child_command, disk_bytes, main_or_child
from bench.cgroups import cgroup, disk_of
from moestream.choices import KVType
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.streaming.page_cache import drop_pages


def read_prompt(spec: dict[str, Any]) -> None:
    """Read a prompt of random tokens as ``spec`` says, and print what it took."""
    kv: KVType = spec["kv"]
    with Engine.open(
        spec["model"],
        context_length=spec["tokens"] + 8,
        cache_type_k=kv,
        cache_type_v=kv,
        budget=spec["budget"],
    ) as engine:
        tokens = np.random.default_rng(0).integers(0, engine.config.vocab_size, spec["tokens"])
        session, before = engine.session(), disk_bytes()
        next(session.generate(tokens.tolist(), SamplingParams(temperature=0)))
        told: dict[str, Any] = {"tps": session.stats.prompt_tps}
        plan, stats = engine.plan, session.residency
        if plan is not None and stats is not None:
            read, experts = disk_bytes() - before, plan.total_expert_bytes
            told |= {"read_share": stats.read_bytes / experts, "disk_share": read / experts}
    print(json.dumps(told))


def warm(path: Path) -> None:
    """Have the page cache hold a file."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def run(args: argparse.Namespace, budget: str | None, disk: int | None) -> dict[str, Any]:
    """One run, the disk slowed down or not."""
    spec = {"model": str(args.model), "tokens": args.tokens, "kv": args.kv, "budget": budget}
    command = child_command(__file__, spec)
    if budget is None:
        warm(args.model)
    else:
        drop_pages([args.model])
    with nullcontext() if disk is None else cgroup("io") as group:
        if group is not None and disk is not None:
            group.limit_reads(disk_of(args.model), disk * 10**6)
            command = group.enter(command)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    """Measure, in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--budget", default="700M,500M")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--kv", default="f16", help="the type of keys and values")
    parser.add_argument("--disk", type=int, help="megabytes a second of further runs")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    runs: dict[tuple[str | None, int | None], list[dict[str, Any]]] = {(None, None): []}
    for budget in args.budget.split(","):
        runs |= {(budget, disk): [] for disk in {None, args.disk}}
    for _ in range(args.repeat):
        for (budget, disk), told in runs.items():
            told.append(run(args, budget, disk))
    rows = []
    for (budget, disk), told in runs.items():
        row: dict[str, Any] = {"budget": budget or "all", "disk_mb_s": disk}
        row |= {key: statistics.median(each[key] for each in told) for key in told[0]}
        row["of_resident"] = row["tps"] / (rows[0]["tps"] if rows else row["tps"])
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(json.dumps({"model": args.model.name, "tokens": args.tokens, "runs": rows}))


if __name__ == "__main__":
    main_or_child(main, read_prompt)
