"""The simulator against the published replay, and its command."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run

from moestream.choices import HALF_LIFE, LayerBudget
from moestream.errors import BudgetError, TraceError
from moestream.policies.configurator import ReadCost
from moestream.policies.shares import split_budget
from moestream.streaming.budget import parse_budget
from moestream.traces.format import DECODE, PREFILL, TraceHeader, read_trace
from moestream.traces.simulator import NAMES, PolicySpec, Simulator
from moestream.traces.writer import TraceWriter

TRACES = Path(__file__).parent / "data" / "traces"
QWEN = TRACES / "qwen3-30b-a3b.route.csv.gz"
MIB = 1 << 20
PUBLISHED: dict[str, tuple[str, LayerBudget, float]] = {
    "belady": ("belady", "global", 0.3),
    "lru": ("lru", "global", 0.3),
    "lfu": ("lfu", "global", 0.3),
    "random": ("random", "global", 2.0),
    "layer": ("lru", "uniform", 0.3),
    "layerlfu": ("lfu", "uniform", 0.3),
}


@cache
def simulator(name: str, layer_budget: LayerBudget = "global") -> Simulator:
    return Simulator(read_trace(TRACES / f"{name}.route.csv.gz"), layer_budget=layer_budget)


def published() -> list[dict[str, str]]:
    with (TRACES / "published.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", published(), ids=lambda row: f"{row['trace']}-{row['budget_mib']}")
def test_published_replay_is_reproduced(row: dict[str, str]) -> None:
    for column, (policy, layer_budget, tolerance) in PUBLISHED.items():
        replay = simulator(row["trace"], layer_budget).run(
            PolicySpec(policy), int(row["budget_mib"]) * MIB
        )
        assert 100 * replay.hit_rate == pytest.approx(float(row[column]), abs=tolerance), column


@pytest.mark.parametrize("trace", ["qwen3-30b-a3b", "gemma-4-26b-a4b"])
@pytest.mark.parametrize("mib", [1000, 2000, 4000])
def test_fading_counts_beat_recency_and_frequency_on_real_routing(trace: str, mib: int) -> None:
    rate = {
        name: simulator(trace).run(PolicySpec(name), mib * MIB).hit_rate
        for name in ("lru", "lfu", "decay", "blend", "belady")
    }
    assert rate["decay"] > max(rate["lru"], rate["lfu"]) - 0.001
    assert rate["blend"] > max(rate["lru"], rate["lfu"]) + 0.007
    assert rate["blend"] > rate["decay"]
    assert max(rate, key=rate.__getitem__) == "belady"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layer_budget", ["global", "uniform", "shallow", "adaptive"])
def test_every_policy_runs_with_every_layer_budget(name: str, layer_budget: LayerBudget) -> None:
    replay = simulator("gemma-4-26b-a4b", layer_budget).run(PolicySpec(name), 2000 * MIB)
    assert 0.5 < replay.hit_rate < 0.85


def test_all_resident_means_every_expert_is_read_once() -> None:
    sim = Simulator(read_trace(QWEN), phase="all")
    replay = sim.run(PolicySpec("lru"), sim.header.total_bytes)
    assert replay.lookups - replay.hits == len(np.unique(sim.sets.keys))


def write_trace(path: Path) -> Path:
    """Two layers of four experts; two prefill tokens, then three of decode."""
    with TraceWriter(path, TraceHeader(2, 4, 1, {0: 10, 1: 30})) as writer:
        for layer in (0, 1):
            writer.record(0, PREFILL, 0, layer, [[0], [1]], [[1], [1]])
        for step, expert in enumerate([0, 2, 2], 2):
            for layer in (0, 1):
                writer.record(0, DECODE, step, layer, [expert], [1])
    return path


def test_counts_are_worked_by_hand(tmp_path: Path) -> None:
    trace = read_trace(write_trace(tmp_path / "t.csv"))
    # All fits: prefill reads 0 and 1, decode hits 0, reads 2, hits 2, in both layers.
    decode = Simulator(trace).run(PolicySpec("lru"), 1000)
    assert (decode.tokens, decode.lookups, decode.hits, decode.bytes_read) == (3, 6, 4, 40)
    both = Simulator(trace, phase="all").run(PolicySpec("lru"), 1000)
    assert (both.tokens, both.lookups, both.hits, both.bytes_read) == (4, 10, 4, 120)
    late = Simulator(trace, warm_up=2).run(PolicySpec("lru"), 1000)
    assert (late.tokens, late.lookups, late.hits, late.bytes_read) == (1, 2, 2, 0)
    assert late.resident_bytes == 120
    with pytest.raises(TraceError, match="no decode tokens to count, after 3"):
        Simulator(trace, warm_up=3)


def test_layers_without_experts_take_no_share(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t.csv", TraceHeader(3, 4, 1, {1: 10, 2: 10})) as writer:
        for step in range(4):
            for layer in (1, 2):
                writer.record(0, DECODE, step, layer, [step % 2], [1])
    sim = Simulator(read_trace(tmp_path / "t.csv"), layer_budget="uniform")
    assert sim.run(PolicySpec("lru"), 40).hits == 4  # 20 bytes each: both experts
    assert sim.run(PolicySpec("lru"), 39).hits == 0


def test_progress_covers_all_sets() -> None:
    sim = simulator("gemma-4-26b-a4b")
    seen: list[int] = []
    sim.run(PolicySpec("lru"), MIB, progress=seen.append)
    assert sum(seen) == len(sim.sets) == 3870


def test_half_life_and_window_reach_the_policy() -> None:
    sim = simulator("qwen3-30b-a3b")
    specs = [PolicySpec("decay", 8), PolicySpec("decay", 128), PolicySpec("decay", 128, 16)]
    specs += [PolicySpec("blend", 32), PolicySpec("blend", 128)]
    assert len({sim.run(spec, 2000 * MIB).hits for spec in specs}) == 5
    assert [spec.label for spec in specs[1:3]] == ["decay 128", "decay 128 window 16"]
    assert replace(specs[0], name="lru").label == "lru"


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("640M", 640 * MIB),
        ("1.5G", 1536 * MIB),
        (" 2gib ", 2048 * MIB),
        ("25%", 250),
        ("12345", 12345),
        ("1k", 1024),
        (".5%", 5),
    ],
)
def test_budget_is_parsed(text: str, n_bytes: int) -> None:
    assert parse_budget(text, 1000) == n_bytes


@pytest.mark.parametrize("text", ["", "M", "-5M", "5Q", "%", "1e3", "25%B", "0", "0%", "5 6M"])
def test_no_budget(text: str) -> None:
    with pytest.raises(BudgetError, match="budget"):
        parse_budget(text, 1000)


def test_budget_is_split() -> None:
    layers = {1: 100, 2: 100, 5: 100, 6: 100}
    assert split_budget("uniform", 203, layers) == dict.fromkeys(layers, 50)
    assert split_budget("shallow", 400, layers) == {1: 100, 2: 100, 5: 100, 6: 100}
    assert split_budget("shallow", 399, layers) == dict.fromkeys(layers, 99)
    many = dict.fromkeys(range(10), 10)
    assert split_budget("shallow", 80, many) == {0: 10, 1: 10} | dict.fromkeys(range(2, 10), 7)
    small = {0: 10, 1: 200, 2: 200}  # what a layer has no use for goes to the others
    assert split_budget("uniform", 210, small) == {0: 10, 1: 100, 2: 100}


@pytest.mark.parametrize("trace", ["qwen3-30b-a3b", "gemma-4-26b-a4b"])
@pytest.mark.parametrize("mib", [2000, 4000])
def test_budget_that_moves_to_where_it_hits_beats_equal_shares(trace: str, mib: int) -> None:
    equal, moved = (
        simulator(trace, kind).run(PolicySpec("decay"), mib * MIB)
        for kind in ("uniform", "adaptive")
    )
    assert moved.hit_rate > equal.hit_rate + 0.002
    assert moved.resident_bytes < 1.01 * mib * MIB  # the prompt is held until its layer runs again


def test_split_experts_are_worked_by_hand(tmp_path: Path) -> None:
    """Three experts of 20 bytes in turn; there is room for two, or for one half of each."""
    with TraceWriter(tmp_path / "t.csv", TraceHeader(1, 4, 1, {0: 20})) as writer:
        for step in range(9):
            writer.record(0, DECODE, step, 0, [step % 3], [1])
    trace = read_trace(tmp_path / "t.csv")
    whole, half, best = (
        Simulator(trace, disk=ReadCost(10.0, 1.0)).run(PolicySpec("lru", split=split), 40)
        for split in (1.0, 0.5, "auto")
    )
    assert (whole.hits, whole.bytes_read, whole.stall_s) == (0, 180, 9.0)
    # Each is read once, then its half: what takes a second is hidden.
    assert (half.hits, half.bytes_read, half.stall_s) == (6, 120, 3.0)
    # Of equally used experts, any share below 1 is in memory as often as is right to wait least.
    assert best.splits == {0: best.split}
    assert best.stall_s is not None
    assert best.stall_s < 9.0


@pytest.mark.parametrize("policy", ["lru", "decay"])
def test_a_split_reads_no_fewer_bytes_than_whole_experts(policy: str) -> None:
    read = [
        simulator("qwen3-30b-a3b").run(PolicySpec(policy, split=split), 4000 * MIB).bytes_read
        for split in (1.0, 0.75, 0.5)
    ]
    assert read == sorted(read)


# The command


def simulate(*arguments: str | Path) -> list[dict[str, Any]]:
    done = run("simulate", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return results


def test_command_prints_json() -> None:
    results = simulate(QWEN, "--policy", "lru,lfu,belady", "--budget", "2000M,25%")
    assert [(r["policy"], r["budget"]) for r in results[:3]] == [
        ("lru", "2000M"),
        ("lru", "25%"),
        ("lfu", "2000M"),
    ]
    assert len(results) == 6
    first = results[0]
    assert first["budget_bytes"] == 2000 * MIB
    assert first["hit_rate"] == pytest.approx(0.565, abs=0.0005)
    assert first["hits"] / first["lookups"] == first["hit_rate"]
    assert first["bytes_read"] > 0
    assert first["half_life"] is None


def test_command_sweeps() -> None:
    results = simulate(QWEN, "--policy", "lru,decay", "--half-life", "8,32", "--budget", "10%")
    assert [(r["policy"], r["half_life"]) for r in results] == [
        ("lru", None),
        ("decay", 8),
        ("decay", 32),
    ]
    (windowed,) = simulate(QWEN, "--policy", "decay", "--window", "16", "--budget", "10%")
    assert (windowed["half_life"], windowed["window"]) == (HALF_LIFE, 16)
    assert windowed["hit_rate"] != results[2]["hit_rate"]


def test_command_counts_what_is_asked_for(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.csv")
    (whole,) = simulate(trace, "--policy", "lru", "--budget", "1000", "--phase", "all")
    assert (whole["tokens"], whole["lookups"], whole["hits"]) == (4, 10, 4)
    (late,) = simulate(trace, "--policy", "lru", "--budget", "1000", "--warm-up", "2")
    assert (late["tokens"], late["hits"]) == (1, 2)
    (layered,) = simulate(trace, "--policy", "lru", "--budget", "60", "--layer-budget", "uniform")
    assert layered["layer_budget"] == "uniform"
    assert layered["hits"] == 4
    (shared,) = simulate(trace, "--policy", "lru", "--budget", "60")
    assert shared["hits"] == 2


def test_command_looks_for_the_best_split() -> None:
    arguments = [QWEN, "--policy", "lru", "--budget", "25%", "--read-speed", "1G", "--hide-ms", "2"]
    (best,) = simulate(*arguments, "--split", "auto")
    tried = simulate(*arguments, "--split", "1,0.875,0.75,0.625,0.5,0.375,0.25")
    assert best["stall_s"] <= 1.05 * min(row["stall_s"] for row in tried)
    assert best["split"] in {row["split"] for row in tried}
    assert set(best["splits"].values()) == {best["split"]}
    told = run("simulate", *arguments, "--split", "auto").stdout
    assert "share kept of an expert" in told
    assert "waited a token, ms" in told


def test_command_prints_tables() -> None:
    done = run("simulate", QWEN, "--policy", "lru,decay", "--budget", "750M,2000M")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    table = lines[lines.index("hit rate, %") + 1 :]
    assert [line.split() for line in table[:2]] == [
        ["policy", "750M", "2000M"],
        ["lru", "0.0", "56.5"],
    ]
    assert table[2].startswith("  decay 32  ")
    assert table[3] == "read a token"
    assert "warning: 750M is less than one token's experts, 785 MiB" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "lru,foo"], "'foo', expected some of decay"),
        (["--policy", ""], "'', expected some of"),
        (["--budget", "5Q"], "'5Q' is no budget"),
        (["--budget", "200%"], "200% is more than all experts"),
        (["--half-life", "0"], "0.0, expected a number of 0.01"),
        (["--half-life", "nan"], "nan, expected a number of 0.01"),
        (["--window", "x"], "'x', expected none, or a whole"),
        (["--window", "0"], "0, expected none, or a whole number of 1"),
        (["--policy", "lru", "--window", "8"], "--window is for decay"),
        (["--split", "2"], "2.0, expected auto, or a number of 0.01 to 1"),
        (["--split", "auto"], "--split auto is about time"),
        (["--hide-ms", "1"], "--hide-ms is about time"),
        (["--read-speed", "fast"], "'fast' is no speed"),
    ],
)
def test_wrong_options_are_usage_errors(arguments: list[str], message: str) -> None:
    done = run("simulate", QWEN, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_budget_that_holds_no_expert_is_refused() -> None:
    done = run("simulate", QWEN, "--policy", "lru", "--budget", "1,10%")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --budget 1 holds no expert: one of this trace takes ")


def test_damaged_trace_ends_the_command(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(QWEN.read_bytes()[:1000])
    done = run("simulate", path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path}: damaged or cut short")


def test_figure_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = simulate(QWEN, "--policy", "lru", "--budget", "5%,10%", "--png", tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert {r["policy"] for r in results} == {"lru", "belady"}  # the bound is always drawn


def test_figure_without_matplotlib_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'matplotlib' else find(n, *a)\n"
        "from moestream.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "simulate", QWEN, "--png", tmp_path / "f.png"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert 'pip install ".[plot]"' in done.stderr
