r"""The section of docs/policies.md on what guesses save on machines that are not here.

    python scripts/docs/policies_clock.py --live CLOCK.json...

replaces that section by what the clock says now; policies.py makes it with the rest of the page.
No machine is measured: three models' headers are made from their dimensions, and the machines are
described in ``MACHINES``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from moestream.forecast.arithmetic import disk_of, work_of
from moestream.forecast.demand import Demand, read_demand
from moestream.forecast.hits import default_hits
from moestream.forecast.machines import machine_of
from moestream.forecast.timed import MOST_AHEAD, Streamed
from moestream.forecast.verdict import plan_of
from moestream.gguf import GGUFHeader, Shard, read_header
from moestream.quants import GGMLQuantizationType as QType
from moestream.quants import row_bytes
from moestream.streaming.memory import Memory, MemoryPlan
from moestream.traces.clock.foretold import MEASURED

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.clock import ISAS, is_off
from bench.shapes import SHAPES
from docs.policies_live import table

TRIED = """A rule for each guess was tried by the clock: read it if its chance of being used (by
rank and distance, of those not in memory, as counted in the run) times the wait that it hides is
more than the disk's time that it costs. It takes away what two and three layers ahead lose, and
gains nothing over reading one layer's guesses all: within 0.5 % as right as measured, up to 4 %
more where they are right in 75 %. Chances by the router's weight, too, gain 0 to 3 % on the demo
model. So a run reads them all, or none where tokens are not faster with them.
"""
PAGE = Path(__file__).parents[2] / "docs" / "policies.md"
TITLE = "## What guesses save on other machines"
MODELS = {
    "Qwen3-30B-A3B": ("qwen3moe", 48, 128, 151_936),
    "gpt-oss-20b": ("gpt-oss", 24, 32, 201_088),
    "Qwen3.6-35B-A3B": ("qwen35moe", 40, 256, 248_320),
}
"""Architecture, layers, experts of each, words."""
MACHINES = {
    "laptop, disk 3.5 GB/s": "cores=8,memory=50G,disk=3.5G,latency=80us,layer=40us",
    "laptop, disk 7 GB/s": "cores=8,memory=50G,disk=7G,latency=60us,layer=40us",
    "M-series Mac": "cores=10,memory=80G,disk=3G,latency=100us,layer=150us",
}
FREE_GIB = (12, 8)
"""Of 16: with little else open, and with a browser."""
CONTEXT = 4096
RECALLS = {"worse": [[0.75], [0.6], [0.5]], "better": [[0.97], [0.94], [0.9]]}
"""Beside those measured: a router that is harder to foretell, and one as Fate reports."""
_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Case:
    """A model in so much memory on a machine."""

    model: str
    machine: str
    free_gib: int
    streamed: Streamed
    plan: MemoryPlan
    hit_rate: float

    def tps(self, ahead: int, **options: Any) -> float:
        """Speed with guesses of so many layers ahead."""
        room = min(self.plan.experts_bytes, self.plan.total_expert_bytes - 1)
        timing = self.streamed.time(
            self.hit_rate, ahead, experts_bytes=room, tokens=_TOKENS, **options
        )
        return timing.tps


def header(model: str) -> GGUFHeader:
    """The header of a model's file, of which nothing else is made."""
    name, layers, experts, words = MODELS[model]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(path, name)
        SHAPES[name].add_keys(writer, layers, experts)
        for weight in SHAPES[name].weights(words, layers, experts):
            packed = (*weight.shape[:-1], row_bytes(weight.type, weight.shape[-1]))
            n_bytes = int(np.prod(packed))
            if weight.type == QType.F32:
                writer.add_tensor_info(weight.name, weight.shape, np.dtype(np.float32), n_bytes)
            else:
                writer.add_tensor_info(
                    weight.name, packed, np.dtype(np.uint8), n_bytes, raw_dtype=weight.type
                )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        head, size = path.read_bytes(), 1 << 40  # as if all the rest were there
        return GGUFHeader(path, [Shard(path, size, read_header(head, path, size))])


def cases() -> list[Case]:
    """Every model in every memory on every machine."""
    found = []
    for model in MODELS:
        file = header(model)
        for free in FREE_GIB:
            plan = plan_of(file, Memory(16 << 30, free << 30, "16G"), context=CONTEXT)
            demand: Demand = read_demand(file)
            share = plan.experts_bytes / plan.total_expert_bytes
            hit_rate = default_hits(demand.num_experts).at(share).expected
            for name, words in MACHINES.items():
                types = {*demand.dense_bytes, *demand.expert_bytes}
                machine = machine_of(words, file, types)
                work = work_of(demand, machine.speeds, CONTEXT)
                streamed = Streamed(demand, work, disk_of(machine.disk))
                found.append(Case(model, name, free, streamed, plan, hit_rate))
    return found


def measure() -> list[dict[str, Any]]:
    """The table's figures."""
    rows = []
    for case in cases():
        work, demand = case.streamed.work, case.streamed.demand
        layer_s = work.layer_s + demand.num_experts_per_tok * work.expert_s
        disk = case.streamed.disk
        aheads = range(1, MOST_AHEAD + 1)
        fits = case.plan.fits
        rows.append(
            {
                "model": case.model,
                "machine": case.machine,
                "free_gib": case.free_gib,
                "share": min(case.plan.experts_bytes / case.plan.total_expert_bytes, 1.0),
                "hit_rate": case.hit_rate,
                "layer_ms": 1e3 * layer_s,
                "expert_ms": 1e3
                * (disk.latency_s + case.streamed.demand.one_expert_bytes / disk.bytes_per_s),
                "fits": fits,
                "none": case.tps(0),
                "ahead": [] if fits else [case.tps(ahead) for ahead in aheads],
                "range": []
                if fits
                else [case.tps(1, recalls=recalls) for recalls in RECALLS.values()],
                "perfect": 0.0 if fits else max(case.tps(ahead, perfect=True) for ahead in aheads),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def section(rows: list[dict[str, Any]]) -> str:
    """The section in Markdown."""
    columns = ["model", "machine", "free", "experts, hits", "layer, expert, ms", "no guesses"]
    columns += [f"{n} ahead" for n in range(1, MOST_AHEAD + 1)]
    columns += ["1 ahead, from, to", "perfect"]
    told = ", ".join(f"{100 * first:.0f} to {100 * last:.0f} %" for first, last in MEASURED)
    machines = "\n".join(f"- {name}: `{words}`" for name, words in MACHINES.items())
    return f"""
{TITLE}

Made by `scripts/docs/policies_clock.py`: tokens a second by the clock (`moestream simulate
--clock`), which runs the live code of decisions as events in time. Nothing of it was measured on
such machines. Of their 16 GB, 12 or 8 GiB are free; the context has {CONTEXT:,} tokens. Assumed:

- an expert is in memory as often as `plan` assumes, by the traces of the most similar model;
- guesses are right as often as the demo model's, from the first rank to the last, 1, 2 and 3 layers
  ahead: {told} (public traces have no hidden states); wrong
  ones are any other expert. *From, to*: 75 % and 97 % right, one layer ahead;
- weights go through the kernels at the speed of memory, and reading takes no core from them.

{machines}

{table(columns, [_cells(row) for row in rows])}
*Layer, expert*: what a layer computes, and in what time one expert is read. *Perfect* guesses know
the future, 1 to 3 layers ahead, whichever is fastest: the rest is the disk's.

{_conclusions(rows)}

{TRIED}"""


def _conclusions(rows: list[dict[str, Any]]) -> str:
    streamed = [row for row in rows if not row["fits"]]
    gains = [row["ahead"][0] / row["none"] - 1 for row in streamed]
    farther = [max(row["ahead"][1:]) / row["ahead"][0] - 1 for row in streamed]
    best = [row["perfect"] / row["none"] - 1 for row in streamed]
    return (
        f"Guesses one layer ahead change the speed by {_percent(gains)}, and the best of two and\n"
        f"three layers changes that by {_percent(farther)}. To know the future would change the "
        f"speed\nwithout guesses by {_percent(best)}."
    )


def live_rows(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of what bench/clock.py printed, in the table's order."""
    runs = [json.loads(path.read_text().splitlines()[-1]) for path in paths]
    rows = [row | {"tokens": run["tokens"]} for run in runs for row in run["rows"]]
    return sorted(rows, key=lambda row: (ISAS.index(row["isa"]), -row["threads"], row["cap"]))


def beside_live(rows: list[dict[str, Any]]) -> str:
    """How true the clock is: live runs on the machine that is here, as bench/clock.py prints."""
    columns = ["kernels, threads", "cap", "layers ahead", "tok/s live, clock", "off"]
    columns += ["stall live, clock, ms", "off", "hits live, clock, %"]
    if not rows:
        return ""
    near = sum(not is_off(row) for row in rows)
    speeds = [row["off"]["tps"] for row in rows]
    waits = {
        guessed: [row["off"]["stall_ms"] for row in rows if bool(row["layers_ahead"]) == guessed]
        for guessed in (False, True)
    }
    rates = [(row["live"], row["clock"]) for row in rows if not row["layers_ahead"]]
    hits = max(100 * abs(live["hit_rate"] - clock["hit_rate"]) for live, clock in rates)
    return f"""
### How true the clock is

`scripts/bench/clock.py`, the demo model, {rows[0]["tokens"]} tokens of Italian, sampled, from a
cold page cache: a live run, and what the clock tells of the same routing and guesses. It is told
how long the arithmetic takes with all experts in memory, what a wait costs beside (threads have to
wake), what the disk gave while those tokens were decoded, and how much the time of a read varies: a
read that takes long is waited for, one that is quick hides no more for it. Nothing else ran.

{table(columns, [_live_cells(row) for row in rows])}
{near} of {len(rows)} are within 10 % of the speed and 20 % (or 0.3 ms) of the wait. Speeds are
off by {_percent(speeds)}, {100 * statistics.mean(map(abs, speeds)):.0f} % on average.
Without guesses, waits are off by {_percent(waits[False])}, and hits by {hits:.1f} points at most.
With guesses, waits are off by {_percent(waits[True])}, {_mean(waits[True])} on average.
With scalar kernels a layer's own work hides most of each read: what is left to wait for is a small
difference of two long times, and with guesses the clock makes it too small by 0.3 to 1.2 ms of 45
to 80.

On 16 cores of another machine, at 500M with 2 and 8 threads, all six rows are within these limits:
speeds are off by -1 to +3 %, waits by -7 to +7 %.
"""


def _live_cells(row: dict[str, Any]) -> list[str]:
    live, clock, off = row["live"], row["clock"], row["off"]
    return [
        f"{row['isa']}, {row['threads']}",
        row["cap"],
        str(row["layers_ahead"]),
        f"{live['tps']:.1f}, {clock['tps']:.1f}",
        f"{100 * off['tps']:+.0f} %",
        f"{live['stall_ms']:.1f}, {clock['stall_ms']:.1f}",
        f"{100 * off['stall_ms']:+.0f} %",
        f"{100 * live['hit_rate']:.1f}, {100 * clock['hit_rate']:.1f}",
    ]


def _mean(parts: list[float]) -> str:
    return f"{100 * statistics.mean(parts):+.0f} %"


def _percent(parts: list[float]) -> str:
    return f"{100 * min(parts):+.0f} to {100 * max(parts):+.0f} %"


def _cells(row: dict[str, Any]) -> list[str]:
    place = [row["model"], row["machine"], f"{row['free_gib']} GiB"]
    if row["fits"]:
        return [*place, "all", f"{row['layer_ms']:.2f}", *["fits"] * (3 + MOST_AHEAD)]
    times = f"{row['layer_ms']:.2f}, {row['expert_ms']:.2f}"
    experts = f"{100 * row['share']:.0f} %, {100 * row['hit_rate']:.0f} %"
    speeds = [f"{tps:.1f}" for tps in (row["none"], *row["ahead"])]
    low, high = row["range"]
    return [*place, experts, times, *speeds, f"{low:.1f}, {high:.1f}", f"{row['perfect']:.1f}"]


def main() -> None:
    """Replace the section, or put it before what the papers claim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--live", type=Path, nargs="*", help="what bench/clock.py printed")
    parser.add_argument("--figures", type=Path, help="what was printed before, instead of replays")
    args = parser.parse_args()
    rows = json.loads(args.figures.read_text()) if args.figures else measure()
    page = PAGE.read_text(encoding="utf-8")
    made = section(rows) + beside_live(live_rows(args.live or ()))
    pattern = re.compile(rf"\n{TITLE}\n.*?(?=\n## )", re.DOTALL)
    if pattern.search(page):
        page = pattern.sub(lambda _: made.rstrip("\n") + "\n", page)
    else:
        before = "\n## Parts of experts\n"
        page = page.replace(before, f"{made.rstrip()}\n\n{before}", 1)
    PAGE.write_text(page, encoding="utf-8")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
