"""What is foreseen of a model's speed: sums by hand, curves, and what is measured and kept."""

import re
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alphabet_model import EMBEDDING, EXPERTS, FFN, HEADS

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.backends.cpu import CpuBackend
from moestream.cli.reports.plan import _age_told, busy_told, verdict
from moestream.errors import StorageError
from moestream.forecast.arithmetic import compute_s, disk_of, work_of
from moestream.forecast.demand import Demand, read_demand
from moestream.forecast.first_token import PRODUCTS, first_token
from moestream.forecast.hits import (
    SHARES,
    HitCurve,
    Hits,
    Range,
    curve_of_profile,
    curve_of_trace,
    default_curves,
    default_hits,
)
from moestream.forecast.outlook import Grounds, Outlook, look_ahead, with_budget
from moestream.forecast.speed import Speedometer
from moestream.forecast.timed import Moment, Streamed, Timetable
from moestream.gguf import GGUFFile, GGUFHeader, Shard, read_header
from moestream.machine import batches, calibration, speeds
from moestream.machine.speeds import DiskSpeed, Speeds, load_speeds, save_speeds
from moestream.streaming.memory import MemoryPlan
from moestream.traces.clock.machine import ClockDisk
from moestream.traces.format import read_trace
from moestream.traces.simulator import PolicySpec, Simulator
from moestream.traces.to_profile import count_trace

DATA = Path(__file__).parent / "data"
QWEN = DATA / "traces" / "qwen3-30b-a3b.route.csv.gz"
DEMAND = Demand(
    dense_bytes={"F16": 100},
    expert_bytes={"Q8_0": 40},
    num_layers=2,
    num_moe_layers=2,
    num_experts=8,
    num_experts_per_tok=2,
    kv_bytes=10,
)
MACHINE = Speeds(
    fingerprint={"threads": 2},
    measured="2026-01-01",
    memory_bytes_per_s=100.0,
    layer_s=0.5,
    streamed_layer_s=0.25,
    kernel_bytes_per_s={"F16": 50.0, "Q8_0": 20.0},
    disks={"device 1": DiskSpeed(1.0, 5.0)},
)
DISK = DiskSpeed(latency_s=1.0, bytes_per_s=5.0)


def test_arithmetic_is_weights_keys_and_values_and_calls() -> None:
    # 100 / 50 + 40 / 20 of weights, 5 tokens * 10 at half of 100, 2 layers * 0.5.
    assert compute_s(DEMAND, MACHINE, 5, streamed=False) == pytest.approx(6.0)
    assert compute_s(DEMAND, MACHINE, 5, streamed=True) == pytest.approx(6.5)


PART_S = 4 / 5
"""An expert of 10 bytes is read in three parts of 4 at most, at 5 bytes a second."""


def test_a_token_is_timed_at_hit_rates_and_lies_on_lines_between() -> None:
    work = work_of(DEMAND, MACHINE, 5)
    table = Timetable(Streamed(DEMAND, work, ClockDisk(DISK.latency_s, DISK.bytes_per_s)), 0)
    # Both layers wait 1 s and for both experts, of which the second is computed after that.
    none = table.at(0.0)
    waited = 2 * (1 + 6 * PART_S)
    assert none.token_s == pytest.approx(2 * (work.layer_s + work.expert_s) + waited, abs=2e-3)
    assert none.stall_s == pytest.approx(waited - 2 * work.expert_s, abs=2e-3)
    assert none.busy_s == pytest.approx(waited, abs=2e-3)
    assert table.at(1.0).token_s == pytest.approx(6.5)
    times = [table.at(rate).token_s for rate in (0.0, 0.3, 0.6, 0.9, 0.97, 1.0)]
    assert times == sorted(times, reverse=True)
    near, half_way = table.at(0.96), table.at(0.98)
    assert half_way.token_s == pytest.approx((near.token_s + 6.5) / 2)


def test_a_slower_disk_shows_where_arithmetic_hides_no_more() -> None:
    moment = Moment(token_s=10.0, stall_s=2.0, busy_s=5.0)  # 8 of arithmetic hide 3 of reading
    assert moment.varied(compute=1, disk=0.5) == 8 + (10 - 3)
    assert moment.varied(compute=0.5, disk=1) == 16 + 0
    assert moment.varied(compute=2, disk=1) == 4 + (5 - 1.5)


def test_guesses_hide_what_a_layer_computes_meanwhile() -> None:
    many = replace(DEMAND, num_layers=8, num_moe_layers=8, dense_bytes={"F16": 800},
                   expert_bytes={"Q8_0": 160})  # fmt: skip
    streamed = Streamed(many, work_of(many, MACHINE, 5), disk_of(replace(DISK, bytes_per_s=50)))
    none, one, sure = (
        streamed.time(0.5, 0),
        streamed.time(0.5, 1),
        streamed.time(0.5, 1, perfect=True),
    )
    assert sure.stall_s < one.stall_s < none.stall_s
    assert sure.counts.decode.foreseen > one.counts.decode.foreseen > 0
    assert streamed.best_ahead(0.5) >= 1
    assert streamed.best_ahead(1.0) == 0


def test_a_forecast_takes_the_quicker_of_guesses_and_none() -> None:
    speedometer = Speedometer(DEMAND, MACHINE, DISK, 5)
    resident = speedometer.forecast(None)
    assert resident.tps == pytest.approx(1 / 6)
    assert (resident.read_s, resident.hit_rate, resident.read_bytes) == (0, None, 0)
    streamed = speedometer.forecast(Range(0.4, 0.5, 0.7), look_further=True)
    work = Streamed(DEMAND, work_of(DEMAND, MACHINE, 5), disk_of(DISK))
    tables = [Timetable(work, ahead).at(0.5).token_s for ahead in (0, 1)]
    assert streamed.tps == 1 / min(tables)
    assert streamed.read_bytes == 20
    assert streamed.layers_ahead in range(4)
    assert resident.layers_ahead is None
    for found in (resident, streamed):
        assert found.low_tps < found.tps < found.high_tps


PROMPT = replace(DEMAND, output_bytes={"F16": 50}, pair_macs=4, hidden_size=16)
BATCHES = replace(
    MACHINE, batch_bytes_per_s={"F16": 1000.0, "Q8_0": 400.0}, attention_macs_per_s=1e4
)
STREAMED = MemoryPlan(
    budget_bytes=80_000,
    dense_bytes=100,
    kv_bytes=100,
    process_bytes=100,
    experts_bytes=65_536,
    floor_bytes=80,
    total_expert_bytes=100_000,
)


def test_a_prompts_arithmetic_is_products_attention_and_one_row_of_logits() -> None:
    found = first_token(PROMPT, BATCHES, DISK, STREAMED, 1000)
    # 1000 * (50 / 1000 + 40 / 400) of products, 2 chunks * 2 layers * 0.5 of calls, 50 / 50 of
    # logits, 4 * 1000**2 / 2 / 1e4 of attention.
    assert found.compute_s == pytest.approx(150 / PRODUCTS + 2 + 1 + 200)
    assert found.tokens == 1000


def test_a_prompt_reads_each_expert_once_a_pass_but_what_was_kept() -> None:
    # An eighth of 65,536 has room for 128 rows of 16 floats: a pass has one chunk.
    found = first_token(PROMPT, BATCHES, DISK, STREAMED, 1000)
    assert found.passes == 2
    assert found.read_bytes == pytest.approx(100_000 + 34_464)
    assert found.read_s == pytest.approx(134_464 / 5 + 2 * 2 * 1.0)
    narrow = replace(PROMPT, hidden_size=1)  # rows for 4 chunks
    assert first_token(narrow, BATCHES, DISK, STREAMED, 2048).passes == 1
    assert first_token(narrow, BATCHES, DISK, STREAMED, 2049).passes == 2
    # One token asks for 2 of 8 experts, two for 2 more of which a quarter were asked for already.
    assert first_token(narrow, BATCHES, DISK, STREAMED, 2).read_bytes == pytest.approx(43_750)


def test_a_prompt_of_many_chunks_reads_a_layer_while_another_computes() -> None:
    narrow, fast = replace(PROMPT, hidden_size=1), DiskSpeed(0.0, 1000.0)
    short = first_token(narrow, BATCHES, fast, STREAMED, 512)
    experts_s = 512 * 40 / 400 / PRODUCTS
    assert short.read_s == pytest.approx(100)  # longer than experts compute
    assert short.ttft_s == pytest.approx(short.compute_s - experts_s + 100)
    long = first_token(narrow, BATCHES, fast, STREAMED, 1000)
    assert long.ttft_s == pytest.approx(
        50 + long.compute_s
    )  # one of two layers is read before all else
    slow = first_token(narrow, BATCHES, DISK, STREAMED, 1000)
    assert slow.ttft_s == pytest.approx(slow.read_s)
    for found in (short, long, slow):
        assert found.low_s < found.ttft_s < found.high_s


def test_hit_rates_lie_on_lines_between_those_measured() -> None:
    curve = HitCurve("a test", 8, tuple(share / 2 for share in SHARES))
    assert [curve.at(share) for share in (0, 0.01, 0.5, 0.55, 1)] == pytest.approx(
        [0, 0.005, 0.25, 0.275, 0.5]
    )
    assert curve.at(-1) == 0
    assert curve.at(2) == 0.5


def test_the_range_is_that_of_all_curves_or_of_a_trace_of_ones_own() -> None:
    flat = [HitCurve("", 8, (rate,) * len(SHARES)) for rate in (0.5, 0.4, 0.7)]
    assert Hits(flat[0], tuple(flat[1:])).at(0.3) == Range(0.4, 0.5, 0.7)
    assert Hits(flat[0]).at(0.3) == pytest.approx((0.4, 0.5, 0.6))


def test_curves_that_come_along_say_whose_they_are_and_are_right() -> None:
    curves = {curve.source: curve for curve in default_curves()}
    assert len(curves) == 3
    for curve in curves.values():
        assert len(curve.rates) == len(SHARES)
        assert list(curve.rates) == sorted(curve.rates)
    assert "demo" in default_hits(32).expected.source
    assert "demo" in default_hits(8).expected.source
    qwen = default_hits(128).expected
    assert "Qwen3-30B-A3B" in qwen.source
    simulator = Simulator(read_trace(QWEN))
    budget = int(0.25 * simulator.header.total_bytes)
    assert qwen.at(0.25) == pytest.approx(
        simulator.run(PolicySpec("decay"), budget).hit_rate, abs=1e-4
    )


def test_a_profile_gives_nearly_what_the_policy_would_hit() -> None:
    trace = read_trace(QWEN)
    curve, profile = curve_of_trace(QWEN), curve_of_profile(count_trace(trace, "mine"))
    assert profile.source == "profile mine"
    assert (profile.rates[0], profile.rates[-1]) == (0, pytest.approx(1))
    assert all(abs(curve.at(share) - profile.at(share)) < 0.03 for share in SHARES[:-1])


def test_demand_is_read_off_the_header(alphabet: Path) -> None:
    with GGUFFile.open(alphabet) as file:
        demand = read_demand(file, "f16", "q8_0" if EMBEDDING // HEADS % 32 == 0 else "f32")
        dense = sum(i.n_bytes for n, i in file.tensors.items() if "_exps" not in n)
        embedding = file.tensors["token_embd.weight"].n_bytes
    assert demand.expert_bytes == {"F32": 2 * 3 * FFN * EMBEDDING * 4}
    assert demand.one_expert_bytes == 3 * FFN * EMBEDDING * 4
    assert sum(demand.dense_bytes.values()) == dense - embedding
    assert demand.output_bytes == {"F32": embedding}
    assert demand.pair_macs == 2 * EMBEDDING
    assert demand.hidden_size == EMBEDDING
    assert demand.kv_bytes == EMBEDDING // HEADS * (2 + 4)
    assert (demand.num_layers, demand.num_moe_layers, demand.num_experts) == (1, 1, EXPERTS)


def test_a_table_that_is_the_output_too_is_read_whole(alphabet: Path) -> None:
    with GGUFFile.open(alphabet) as file:
        untied = read_demand(file)
        file.tensors = {n: info for n, info in file.tensors.items() if n != "output.weight"}
        # Both tables are of one size: here the one is read in the other's place.
        assert read_demand(file) == untied


# What is measured.


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Stand-ins for all that measures, which say that they were called."""
    calls: list[str] = []

    def stand_in(name: str, value: Any) -> None:
        def measure(*arguments: Any) -> Any:
            calls.append(name)
            return dict.fromkeys(arguments[1], 7.0) if name == "kernels" else value

        target = {"kernels": "kernel_speeds", "layer": "layer_costs"}.get(name, name)
        monkeypatch.setattr(calibration, target, measure)

    monkeypatch.setattr(batches, "batch_speeds", lambda _, types: dict.fromkeys(types, 5.0))
    monkeypatch.setattr(batches, "attention_speed", lambda folder: calls.append("attention") or 2.0)
    stand_in("layer", (0.1, 0.2))
    stand_in("kernels", None)
    stand_in("memory_speed", 9.0)
    stand_in("disk_costs", (0.3, 4.0))
    monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path / "cache"))
    return calls


def test_a_machine_is_measured_once(counted: list[str], alphabet: Path) -> None:
    with GGUFFile.open(alphabet) as file:
        first, disk = speeds.known_speeds(file, ["F32"])
        twice = ["disk_costs", "disk_costs", "kernels", "layer", "memory_speed", "memory_speed"]
        assert sorted(counted) == ["attention", *twice]
        assert disk == DiskSpeed(0.3, 4.0)
        assert (first.layer_s, first.streamed_layer_s) == (0.1, 0.2)
        counted.clear()
        assert speeds.known_speeds(file, ["F32"]) == (first, disk)
        assert counted == ["memory_speed"]  # whether it was a busy moment
        counted.clear()
        more, _ = speeds.known_speeds(file, ["F32", "Q8_0"])
        assert counted == ["kernels", "memory_speed"]
        assert set(more.kernel_bytes_per_s) == {"F32", "Q8_0"}
        counted.clear()
        speeds.known_speeds(file, ["F32"], anew=True)
        assert len(counted) == 7
        assert first.attention_macs_per_s == 2.0
        assert more.batch_bytes_per_s == {"F32": 5.0, "Q8_0": 5.0}


@pytest.mark.parametrize(("first", "again", "now"), [(9.0, 6.0, 9.0), (6.0, 6.0, 9.0)])
def test_a_speed_measured_in_a_busy_moment_is_noticed(
    first: float,
    again: float,
    now: float,
    counted: list[str],
    alphabet: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gave = iter([first, again, now])
    monkeypatch.setattr(calibration, "memory_speed", lambda backend: next(gave))
    with GGUFFile.open(alphabet) as file:
        known, disk = speeds.known_speeds(file, ["F32"])
        assert known.memory_bytes_per_s == max(first, again)
        assert known.is_steady == (first == again)
        known, disk = speeds.known_speeds(file, ["F32"])
    assert not known.is_steady
    told = busy_told(known, disk)
    assert told is not None
    assert "6 bytes/s once" in told
    assert "--measure" in told
    assert busy_told(MACHINE, DISK) is None


def test_an_age_is_told_in_days() -> None:
    assert MACHINE.age_days(date.fromisoformat(MACHINE.measured) + timedelta(days=12)) == 12
    told = _age_told(replace(MACHINE, measured="2020-01-01"))
    assert re.fullmatch(r", \d+ days ago \(--measure measures anew\)", told)


def test_a_model_without_experts_needs_no_disk(counted: list[str]) -> None:
    with GGUFFile.open(DATA / "golden" / "llama.gguf") as file:
        assert speeds.known_speeds(file, ["F32"])[1] is None
    assert "disk_costs" not in counted


def test_a_model_that_is_not_here_takes_the_disk_of_the_folder_of_models(
    counted: list[str], alphabet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with GGUFFile.open(alphabet) as file:
        shard = Shard(alphabet, file.n_bytes, read_header(alphabet.read_bytes(), alphabet))
    header, sizes = GGUFHeader(alphabet, [shard]), []

    def measure(folder: Path, expert_bytes: int) -> tuple[float, float]:
        sizes.append(expert_bytes)
        return 0.5, 6.0

    monkeypatch.setattr(calibration, "disk_costs_of_folder", measure)
    assert speeds.known_speeds(header, ["F32"])[1] == DiskSpeed(0.5, 6.0)
    assert sizes == [3 * FFN * EMBEDDING * 4] * 2
    assert "disk_costs" not in counted
    assert speeds.known_speeds(header, ["F32"])[1] == DiskSpeed(0.5, 6.0)
    assert len(sizes) == 2


def test_what_was_measured_elsewhere_or_is_damaged_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    assert load_speeds(path, {"threads": 2}) is None
    save_speeds(path, MACHINE)
    assert load_speeds(path, {"threads": 2}) == MACHINE
    assert load_speeds(path, {"threads": 4}) is None
    for text in ("", "[]", '{"disks": {}}', '{"disks": 3}', path.read_text()[:-20]):
        path.write_text(text)
        assert load_speeds(path, {"threads": 2}) is None
    assert [file.name for file in tmp_path.iterdir()] == ["machine.json"]


def test_measurements_measure_something(
    monkeypatch: pytest.MonkeyPatch, alphabet: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(calibration, "_BLOCK_BYTES", 1 << 20)
    backend = CpuBackend()
    assert calibration.memory_speed(backend) > 1e8
    speeds = calibration.kernel_speeds(backend, ["Q4_K", "BF16", "IQ2_XXS"], 1e15)
    assert all(1e5 < speed < 1e15 for speed in speeds.values())
    assert calibration.kernel_speeds(backend, ["Q8_0"], 3.0) == {"Q8_0": 3.0}
    products = batches.batch_speeds(backend, ["F32", "Q4_K", "IQ2_XXS"])
    assert all(1e5 < speed < 1e15 for speed in products.values())
    monkeypatch.setattr(batches, "_CHUNK", 32)
    monkeypatch.setattr(batches, "_AFTER", 256)
    assert 1e6 < batches.attention_speed(tmp_path) < 1e16
    layer_s, streamed_s = calibration.layer_costs(tmp_path)
    assert 1e-7 < layer_s < 0.1
    assert 0 <= streamed_s < 0.1
    assert list(tmp_path.iterdir()) == []
    with GGUFFile.open(alphabet) as file:
        latency_s, bytes_per_s = calibration.disk_costs(file)
    assert 0 <= latency_s < 1
    assert bytes_per_s > 1e5
    monkeypatch.setattr(calibration, "_SCRATCH_BYTES", 1 << 20)
    latency_s, bytes_per_s = calibration.disk_costs_of_folder(tmp_path, 10_000)
    assert 0 <= latency_s < 1
    assert bytes_per_s > 1e5
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(calibration, "_SCRATCH_BYTES", 1 << 60)
    with pytest.raises(StorageError, match="GB free, and to measure its disk takes"):
        calibration.disk_costs_of_folder(tmp_path, 10_000)


# What comes of it.

MIB = 1 << 20
PLAN = MemoryPlan(
    budget_bytes=60 * MIB,
    dense_bytes=20 * MIB,
    kv_bytes=5 * MIB,
    process_bytes=5 * MIB,
    experts_bytes=30 * MIB,
    floor_bytes=10 * MIB,
    total_expert_bytes=100 * MIB,
)
FLAT = Hits(HitCurve("a test", 8, SHARES))
GROUNDS = Grounds(DEMAND, MACHINE, DISK, FLAT, 5)


def look(budget_mib: int, **changes: Any) -> Outlook:
    others = changes.pop("others_mib", 30)
    budget = budget_mib * MIB
    plan = replace(
        PLAN, budget_bytes=budget, experts_bytes=max(budget - others * MIB, 0), **changes
    )
    return look_ahead(plan, GROUNDS)


@pytest.mark.parametrize("type", [np.float16, np.float32])
def test_weights_that_kernels_are_measured_with_are_ordinary_numbers(type: Any) -> None:
    noise = calibration.ordinary_noise(1 << 16).view(type)
    assert noise.min() >= np.finfo(type).tiny


@pytest.mark.parametrize(
    ("budget_mib", "case", "flags"),
    [
        (130, "fits", ()),
        (129, "streams", ("--budget", "129M")),
        (40, "streams", ("--budget", "40M")),
        (39, "below the floor", ("--budget", "39M")),
        (29, "too little", ()),
    ],
)
def test_the_four_cases(budget_mib: int, case: str, flags: tuple[str, ...]) -> None:
    outlook = look(budget_mib)
    assert outlook.chosen.case == case
    assert outlook.flags == flags
    assert outlook.floor_budget_bytes == 40 * MIB


def test_the_verdict_is_about_the_budget_that_was_asked_for() -> None:
    plan = replace(PLAN, budget_bytes=500 * MIB, experts_bytes=470 * MIB)
    budgets = (20 * MIB, 130 * MIB)
    outlook = look_ahead(plan, GROUNDS, budgets=budgets)
    assert outlook.chosen is outlook.asked[0]
    assert [point.case for point in outlook.asked] == ["too little", "fits"]
    assert "20.0 MiB is too little" in verdict(outlook.chosen, outlook.floor_budget_bytes)
    assert outlook.auto.plan.budget_bytes == 500 * MIB
    assert len(outlook.points) == 3


def test_a_large_cache_is_to_be_halved() -> None:
    flags = look(65, kv_bytes=30 * MIB, others_mib=55).flags
    assert flags == ("--budget", "65M", "-ctk", "q8_0", "-ctv", "q8_0")


def test_more_memory_is_never_slower_and_all_shares_are_looked_at() -> None:
    outlook = look(70)
    budgets = [point.plan.budget_bytes // MIB for point in outlook.points]
    assert budgets == [40, 55, 70, 80, 105, 130]
    assert outlook.points[2] is outlook.chosen
    speeds = [point.forecast.tps for point in outlook.points]
    assert speeds == sorted(speeds)
    assert [round(point.share, 2) for point in outlook.points] == [0.1, 0.25, 0.4, 0.5, 0.75, 1.0]
    assert outlook.points[-1].forecast.hit_rate is None


def test_a_rough_forecast_hides_a_fixed_part_of_reading() -> None:
    found = Speedometer(DEMAND, MACHINE, DISK, 5).rough(Range(0.4, 0.5, 0.7))
    # Both experts are there once in four times: 0.75 waits of 1 s, and one expert of 10 at 5 / s.
    assert found.read_s == pytest.approx(2 * (0.75 + 2))
    assert found.tps == pytest.approx(1 / (6.5 + 5.5 - 0.15 * 5.5))
    assert found.low_tps < found.tps < found.high_tps


def test_another_budget_leaves_as_much_room_for_keys_and_values():
    parts = {"dense_bytes": 10, "kv_bytes": 5, "process_bytes": 5, "floor_bytes": 1}
    plan = MemoryPlan(100, experts_bytes=80, total_expert_bytes=500, context_bytes=40, **parts)
    assert with_budget(plan, 90).experts_bytes == 70
