"""What is foreseen of several machines that share a model: by hand, and ``plan --machines``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from alphabet_model import write_alphabet_model
from command_line import run, usage_error

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.errors import RankError
from moestream.forecast.arithmetic import compute_s
from moestream.forecast.demand import read_demand
from moestream.forecast.fleet import Fleet, Wanted, foresee_fleet
from moestream.forecast.hits import default_hits
from moestream.forecast.outlook import Grounds
from moestream.forecast.pipeline import (
    PROGRAM_HOP_S,
    Link,
    Station,
    link_of,
    prompt_s,
    rate,
    token_s,
)
from moestream.gguf import GGUFFile
from moestream.machine.speeds import DiskSpeed, Speeds
from moestream.models import used_names
from moestream.ranks.costs import PROGRAM_BYTES, Costs
from moestream.ranks.division import Machine, divide

MACHINE = Speeds(
    fingerprint={"threads": 2},
    measured="2026-01-01",
    memory_bytes_per_s=1e9,
    layer_s=1e-3,
    streamed_layer_s=1e-4,
    kernel_bytes_per_s={"F32": 1e8},
    batch_bytes_per_s={"F32": 1e10},
    attention_macs_per_s=1e10,
)
DISK = DiskSpeed(1e-3, 1e8)
LINK = Link(1e9, 1e-3)
CONTEXT = 100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_alphabet_model(tmp_path_factory.mktemp("model") / "abc.gguf", layers=5)


def foresee(model: Path, *memory_bytes: int, prompts: tuple[int, ...] = ()) -> Fleet:
    with GGUFFile.open(model) as file:
        file.restrict(used_names(file))
        grounds = Grounds(read_demand(file), MACHINE, DISK, default_hits(4), CONTEXT)
        return foresee_fleet(file, grounds, Wanted(memory_bytes, LINK, prompts))


def test_a_link_is_read() -> None:
    assert link_of("1G") == Link(1e9, 200e-6)
    assert link_of("40G").latency_s < link_of("10G").latency_s < link_of("1G").latency_s
    assert link_of("2.5G, 0.5ms") == Link(2.5e9, 5e-4)
    assert link_of("100M,2s") == Link(1e8, 2.0)
    for wrong in ("", "1", "1G,", "1G,5", "0G", "fast", "1G,-1ms"):
        with pytest.raises(RankError, match=r"is no link; expected 1G, 10G or 40G"):
            link_of(wrong)


def test_a_hop_is_bytes_latency_and_the_program() -> None:
    # 2048 float32: 65,536 bits at 1 Gbit/s, 1 ms.
    assert LINK.hop_s(4 * 2048) == pytest.approx(65.536e-6 + 1e-3 + PROGRAM_HOP_S)


def test_a_token_is_its_parts_and_a_hop_from_each() -> None:
    assert token_s([3.0], 10.0) == 3
    assert token_s([3.0, 4.0], 0.5) == 8
    assert rate([3.0, 4.0], 0.5, 1) == pytest.approx(1 / 8)
    assert rate([3.0, 3.0], 0.5, 2) == pytest.approx(2 / 7)  # the way back is waited for
    assert rate([3.0, 5.0], 0.5, 2) == pytest.approx(1 / 5)  # the slowest is never idle
    assert rate([3.0, 5.0], 0.5, 9) == pytest.approx(1 / 5)


def test_a_prompts_chunks_overlap() -> None:
    two = [Station(4.0), Station(4.0)]
    # The first is done at 1, 2, 3, 4, the second at 2, 3, 4, 5.
    assert prompt_s(two, 4, 0.0, 0.0) == 5
    # On the way for 0.5: at 2.5, 3.5, 4.5, 5.5, and back.
    assert prompt_s(two, 4, 0.0, 0.5) == 6
    assert prompt_s([Station(4.0)], 4, 0.5, 0.5) == 4
    assert prompt_s(two, 1, 0.0, 0.0) == 8
    # The second is slower: it begins at 1, and takes 8.
    assert prompt_s([Station(4.0), Station(8.0)], 4, 0.0, 0.0) == 9


def test_a_slow_link_carries_one_chunk_at_a_time() -> None:
    # Sent from 1 to 4, 7, 10, 13: each is computed meanwhile but the last, and comes back till 17.
    assert prompt_s([Station(4.0), Station(4.0)], 4, 3.0, 0.0) == 17


def test_chunks_that_are_gathered_overlap_no_more() -> None:
    assert prompt_s([Station(4.0, 4), Station(4.0, 4)], 4, 0.0, 0.0) == 8
    # Pairs: there at 2 and 4, done at 4 and 6.
    assert prompt_s([Station(4.0, 2), Station(4.0, 2)], 4, 0.0, 0.0) == 6
    assert prompt_s([Station(4.0, 2), Station(4.0)], 4, 0.0, 0.0) == 6
    assert prompt_s([Station(4.0), Station(4.0, 3)], 4, 0.0, 0.0) == 7  # 3 at 3, 1 at 6


def test_parts_ask_for_what_the_whole_asks_for(model: Path) -> None:
    with GGUFFile.open(model) as file:
        whole = read_demand(file)
        parts = [read_demand(file, part=part) for part in (range(2), range(2, 5))]
    for name in ("dense_bytes", "expert_bytes", "output_bytes"):
        for type in getattr(whole, name):
            assert sum(getattr(p, name).get(type, 0) for p in parts) == getattr(whole, name)[type]
    for name in ("num_layers", "num_moe_layers", "kv_bytes", "pair_macs"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name)
    assert parts[0].output_bytes
    assert not parts[1].output_bytes


def test_layers_are_divided_as_they_are_in_a_run(model: Path) -> None:
    memory = (1 << 30, 1 << 28)
    fleet = foresee(model, *memory)
    with GGUFFile.open(model) as file:
        costs = Costs.of(file, {"context_length": CONTEXT})
    machines = [Machine(int(0.85 * n) - PROGRAM_BYTES, 1.0) for n in memory]
    parts = divide(costs.layers, costs.ends, machines)
    assert [member.part for member in fleet.members] == parts
    for member, machine, part in zip(fleet.members, machines, parts, strict=True):
        plan = member.point.plan
        assert plan.budget_bytes - PROGRAM_BYTES == machine.memory_bytes
        resident = sum(costs.layers[i].resident_bytes for i in part)
        ends = costs.ends.resident_bytes if part.start == 0 else 0
        assert plan.other_bytes == PROGRAM_BYTES + resident + ends
        assert plan.total_expert_bytes == sum(costs.layers[i].expert_bytes for i in part)


def test_a_fleets_token_is_its_machines_and_hops(model: Path) -> None:
    fleet = foresee(model, 1 << 30, 1 << 30, 1 << 30)
    with GGUFFile.open(model) as file:
        demands = [read_demand(file, part=member.part) for member in fleet.members]
        whole = read_demand(file)
    seconds = [compute_s(each, MACHINE, CONTEXT, streamed=False) for each in demands]
    hop_s = LINK.hop_s(4 * whole.hidden_size)
    assert fleet.hop_s == hop_s
    assert 1 / fleet.tps == pytest.approx(sum(seconds) + 3 * hop_s)
    assert sum(seconds) == pytest.approx(1 / fleet.alone.forecast.tps)
    assert fleet.hops_share == pytest.approx(3 * hop_s / (sum(seconds) + 3 * hop_s))
    assert fleet.many_tps == pytest.approx(min(3 * fleet.tps, 1 / max(seconds)))
    assert fleet.low_tps < fleet.tps < fleet.high_tps


def test_one_machine_has_no_hops(model: Path) -> None:
    fleet = foresee(model, 1 << 30, prompts=(1000,))
    assert fleet.hops_share == 0
    assert fleet.tps == pytest.approx(fleet.alone.forecast.tps)
    assert fleet.prompts[0].ttft_s == fleet.alone.prompts[0].ttft_s


def test_a_fleets_prompt_overlaps(model: Path) -> None:
    fleet = foresee(model, 1 << 30, 1 << 30, prompts=(512, 5120))
    short, long = fleet.prompts
    assert short.ttft_s > sum(each.point.prompts[0].ttft_s for each in fleet.members)
    first, second = (each.point.prompts[1].ttft_s for each in fleet.members)
    assert max(first, second) < long.ttft_s < 0.7 * (first + second)
    assert long.in_turn_s > first + second
    assert long.low_s < long.ttft_s < long.high_s


def test_machines_that_stream_read_for_each_pass(model: Path) -> None:
    """So little memory holds the rows of one chunk."""
    with GGUFFile.open(model) as file:
        resident = Costs.of(file, {"context_length": CONTEXT}).layers[-1].resident_bytes
    small = int((PROGRAM_BYTES + resident + 50_000) / 0.85)
    fleet = foresee(model, 1 << 30, small, small, prompts=(2048,))
    first, *others = fleet.members
    assert first.point.plan.fits
    for member in others:
        assert not member.point.plan.fits
        (prompt,) = member.point.prompts
        assert prompt.passes == 4
        plan = member.point.plan
        again = plan.total_expert_bytes - plan.experts_bytes
        assert prompt.read_bytes == pytest.approx(plan.total_expert_bytes + 3 * again)


def test_the_command_says_all_of_it(model: Path, tmp_path: Path) -> None:
    env = {"MOESTREAM_CACHE": str(tmp_path)}
    options = ["--machines", "1G,1G,200M", "--link", "10G,50us", "-c", "100"]
    done = run("plan", model, *options, "--json", env=env)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["link"] == {"bits_per_s": 1e10, "latency_s": pytest.approx(50e-6)}
    layers = [each["layers"] for each in value["machines"]]
    assert layers[0][0] == 0
    assert [begin for begin, _ in layers[1:]] == [end for _, end in layers[:-1]]
    assert layers[-1][1] == 5
    assert 0 < value["tps"] < value["alone"]["tps"]
    assert [prompt["tokens"] for prompt in value["prompts"]] == [1000, 10_000]
    words = " ".join(run("plan", model, *options, env=env).stdout.split())
    for part in (
        "abc.gguf on 3 machines",
        "10 Gbit/s, 0.05 ms one way",
        "3 hops of 0.25 ms",
        "times as fast as on one machine",
        "prompt all machines if they took turns one alone",
    ):
        assert part in words, part


@pytest.mark.slow
def test_a_machine_with_too_little_memory_is_named(model: Path, tmp_path: Path) -> None:
    env = {"MOESTREAM_CACHE": str(tmp_path)}
    done = run("plan", model, "--machines", "1G,2M", env=env)
    assert "machine 1 has too little memory: 15" in done.stdout
    many = run("plan", model, "--machines", ",".join(["1G"] * 6), env=env)
    assert many.returncode == 1
    assert "6 machines are too many for the 5 layers" in many.stderr


def test_the_page_has_what_the_script_makes() -> None:
    script = Path(__file__).parents[1] / "scripts" / "docs" / "machines.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--machines 1G,1G --link 3", "'3' is no link; expected 1G, 10G or 40G"),
        ("--link 1G", "--link is between machines; name them"),
        ("--machines 1G,1G --memory 1G", "--machines says how much memory there is"),
        ("--machines 1G,1G --budget 1G", "--machines says how much memory there is"),
        ("--machines 1G,much", "'much' is no budget"),
    ],
)
def test_wrong_machines_are_a_usage_error(flags: str, complaint: str, model: Path) -> None:
    assert complaint in usage_error("plan", model, *flags.split())
