r"""Makes docs/policies.md from data that it makes: routing of the demo model, and replays of it.

    python scripts/docs/policies.py TRACE... [--model demo] [--work FOLDER] \
        [--live bench.json] [--shift shift.json]

TRACEs are further routing traces, as of Qwen3-30B-A3B. Routing and guesses of the demo model are
recorded into FOLDER by ``moestream generate`` unless they are there. ``--live`` and ``--shift``
take the output of scripts/bench/stream.py and shift.py, run as ``policies_live.COMMANDS`` says,
which wants a quiet machine. The last line is JSON: every figure of the page.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from moestream.choices import LayerBudget
from moestream.policies.configurator import ReadCost
from moestream.traces.format import Trace, read_trace
from moestream.traces.guesses import Foresight
from moestream.traces.simulator import NAMES, PolicySpec, Replay, Simulator

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench import heldout
from bench.capped import MOESTREAM
from docs import policies_clock
from docs.policies_tables import page

ROOT = Path(__file__).parents[2]
DOMAINS = {"it": "Italian", "en": "English", "code": "Python code"}
BUDGETS = (5, 10, 25, 50, 75)
"""In percent of all experts."""
SYSTEMS: dict[str, tuple[PolicySpec, LayerBudget]] = {
    "decay, uniform": (PolicySpec("decay"), "uniform"),
    "decay, shallow": (PolicySpec("decay"), "shallow"),
    "decay, adaptive": (PolicySpec("decay"), "adaptive"),
    "arc, shallow (Fate)": (PolicySpec("arc"), "shallow"),
    "lcp, adaptive (MoEpic)": (PolicySpec("lcp"), "adaptive"),
}
SPLITS = (1.0, 0.75, 0.5, "auto")
SHIFT_WINDOW = 32
SHIFT_POLICIES = ("lru", "lfu", "lcp", "decay", "blend", "belady")
MASSES = (None, 0.2, 0.3, 0.4, 1.0)
_PROMPT_CHARACTERS = 1200
_REPEATS = 3


def record(work: Path, model: str, domain: str, tokens: int) -> tuple[Path, Path]:
    """Routing and guesses of a run on text that the demo's recipe has not seen."""
    routing, guesses = work / f"{domain}.route.csv.gz", work / f"{domain}.guesses.csv.gz"
    if not (routing.exists() and guesses.exists()):
        prompt = heldout.text(domain)[:_PROMPT_CHARACTERS]
        command = [*MOESTREAM, "generate", model, "--raw", "-p", prompt]
        command += ["-n", str(tokens), "-s", "1", "-q"]
        command += ["--trace", str(routing), "--stream", f"trace-guesses={guesses}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return routing, guesses


def joined(path: Path, first: Trace, second: Trace) -> Trace:
    """One trace after the other, as two turns."""
    later = second.rows.copy()
    later["turn"] += first.rows["turn"].max() + 1
    return replace(first, path=path, rows=np.concatenate([first.rows, later]))


def rates(trace: Trace) -> dict[str, list[tuple[float, float]]]:
    """Hit rates at all budgets, of every policy and of the systems, and the budget's part used."""
    simulators: dict[LayerBudget, Simulator] = {}
    runs = {name: (PolicySpec(name), "global") for name in NAMES} | SYSTEMS
    found: dict[str, list[tuple[float, float]]] = {}
    for label, (spec, kind) in runs.items():
        if kind not in simulators:
            simulators[kind] = Simulator(trace, layer_budget=kind)
        simulator = simulators[kind]
        replays = [(simulator.run(spec, n), n) for n in _amounts(trace)]
        found[label] = [(run.hit_rate, run.resident_bytes / n) for run, n in replays]
    return found


def _amounts(trace: Trace) -> list[int]:
    return [trace.header.total_bytes * percent // 100 for percent in BUDGETS]


def splits(trace: Trace, disk: ReadCost) -> dict[str, list[dict[str, float]]]:
    """What keeping parts of experts would read and make wait, at a quarter and a half."""
    simulator = Simulator(trace, layer_budget="adaptive", disk=disk)
    found = {}
    for split in SPLITS:
        spec = PolicySpec("lcp", split=split)
        runs = [simulator.run(spec, trace.header.total_bytes // part) for part in (4, 2)]
        found[f"{split}" if split == "auto" else f"{split:g}"] = [_split_row(run) for run in runs]
    return found


def _split_row(run: Replay) -> dict[str, float]:
    return {
        "split": run.split,
        "hit_rate": run.hit_rate,
        "token_mib": run.bytes_read / run.tokens / (1 << 20),
        "wait_ms": 1e3 * (run.stall_s or 0) / run.tokens,
    }


def foreseen(runs: list[tuple[Trace, Trace]]) -> dict[str, Any]:
    """Recall by layer, and of Fate's cache and our default what was in memory or foreseen."""
    recall: dict[str, dict[int, float]] = {}
    covered: dict[str, dict[str, list[float]]] = {}
    for mass in MASSES:
        label = "k" if mass is None else f"mass {mass:g}"
        layers: dict[int, list[float]] = {}
        sums: dict[str, list[list[tuple[float, float]]]] = {}
        for trace, guesses in runs:
            foresight = Foresight(trace, guesses, mass)
            for name, policy, kind in (
                ("decay", "decay", "global"),
                ("arc, shallow (Fate)", "arc", "shallow"),
            ):
                simulator = Simulator(trace, layer_budget=kind, foresight=foresight)
                made = [simulator.run(PolicySpec(policy), n) for n in _amounts(trace)]
                sums.setdefault(name, []).append([(r.covered_rate, _wasted(r)) for r in made])
            for layer, found in foresight.recall(simulator.sets).items():
                layers.setdefault(layer, []).append(found.recall)
        recall[label] = {layer: float(np.mean(values)) for layer, values in layers.items()}
        covered[label] = {
            name: np.mean(values, axis=0).ravel().tolist() for name, values in sums.items()
        }
    return {"recall": recall, "covered": covered}


def _wasted(run: Replay) -> float:
    """Guessed in vain, experts a token."""
    return (run.wasted or 0) / run.tokens


def shift(trace: Trace) -> dict[str, list[float]]:
    """Hit rates window by window, with a quarter of the experts in memory."""
    total = Simulator(trace).tokens
    starts = range(0, total, SHIFT_WINDOW)
    found: dict[str, list[float]] = {}
    for name in SHIFT_POLICIES:
        after = [
            Simulator(trace, warm_up=start).run(PolicySpec(name), trace.header.total_bytes // 4)
            for start in starts
        ]
        hits = [run.hits for run in after] + [0]
        lookups = [run.lookups for run in after] + [0]
        found[name] = [
            (hits[i] - hits[i + 1]) / (lookups[i] - lookups[i + 1]) for i in range(len(after))
        ]
    return found


def overhead(trace: Trace) -> dict[str, float]:
    """Microseconds of policy for one token, with a quarter of the experts in memory; the least."""
    found = {}
    for label, (spec, kind) in {"decay": (PolicySpec("decay"), "global"), **SYSTEMS}.items():
        simulator = Simulator(trace, layer_budget=kind)
        passes, times = len(np.unique(simulator.sets.tokens)), []
        for _ in range(_REPEATS):
            started = time.process_time()
            simulator.run(spec, trace.header.total_bytes // 4)
            times.append(time.process_time() - started)
        found[label] = 1e6 * min(times) / passes
    return found


def last_line(path: Path | None) -> dict[str, Any] | None:
    """What a benchmark printed last."""
    return None if path is None else json.loads(path.read_text().splitlines()[-1])


def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All that the page tells."""
    recorded = {
        domain: [read_trace(path) for path in record(work, args.model, domain, args.tokens)]
        for domain in DOMAINS
    }
    traces = {f"demo, {DOMAINS[domain]}": pair[0] for domain, pair in recorded.items()}
    both = joined(Path("shift"), recorded["it"][0], recorded["code"][0])
    traces["demo, Italian, then code"] = both
    traces |= {path.name.removesuffix(".route.csv.gz"): read_trace(path) for path in args.traces}
    disk = ReadCost(args.disk * 1e6, args.hide_ms / 1e3)
    return {
        "budgets": BUDGETS,
        "traces": {
            label: {
                "tokens": Simulator(trace).tokens,
                "layers": len(trace.header.expert_bytes),
                "experts": trace.header.num_experts,
                "k": trace.header.num_experts_per_tok,
                "mib": trace.header.total_bytes / (1 << 20),
                "rates": rates(trace),
                "splits": splits(trace, disk),
            }
            for label, trace in traces.items()
        },
        "disk": asdict(disk),
        "foreseen": foreseen([(pair[0], pair[1]) for pair in recorded.values()]),
        "shift": {"window": SHIFT_WINDOW, "turn": Simulator(recorded["it"][0]).tokens}
        | {"rates": shift(both)},
        "elsewhere": policies_clock.measure(),
        "clock": policies_clock.live_rows(args.clock or ()),
        "overhead_us": overhead(both),
        "live": last_line(args.live),
        "live_shift": last_line(args.shift),
    }


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", nargs="*", type=Path, metavar="TRACE")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tokens", type=int, default=256, help="generated for each domain")
    parser.add_argument("--work", type=Path, help="where routing is kept between runs")
    parser.add_argument("--live", type=Path, help="what scripts/bench/stream.py printed")
    parser.add_argument("--clock", type=Path, nargs="*", help="what bench/clock.py printed")
    parser.add_argument("--shift", type=Path, help="what scripts/bench/shift.py printed")
    parser.add_argument("--disk", type=float, default=1000, help="MB/s, for split experts")
    parser.add_argument("--hide-ms", type=float, default=0.3, help="a layer's computing time")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "policies.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = measure(args, args.work or Path(folder))
    args.out.write_text(page(data), encoding="utf-8")
    print(json.dumps(data))


if __name__ == "__main__":
    main()
