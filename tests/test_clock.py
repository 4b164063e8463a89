"""The clock: cases that are solved by hand, and the live engine's own decisions."""

import json
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from command_line import run

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.errors import BudgetError
from moestream.forecast.arithmetic import compute_s, work_of
from moestream.forecast.demand import Demand
from moestream.forecast.machines import machine_of
from moestream.gguf import GGUFHeader
from moestream.machine.speeds import DiskSpeed, Speeds, save_speeds
from moestream.policies import LRU, Decay
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions
from moestream.streaming.reader import ABSENT, QUEUED, READING, READY
from moestream.traces.clock.foretold import Drawn, Foretell, Recorded, foresee_all
from moestream.traces.clock.machine import ClockDisk, Work
from moestream.traces.clock.reader import ClockedReader
from moestream.traces.clock.replay import Replay, Setting, Timing
from moestream.traces.clock.turns import passes_of
from moestream.traces.format import DECODE, PREFILL, Trace, TraceHeader, read_trace
from moestream.traces.recording import TraceRecorder
from moestream.traces.writer import TraceWriter

DATA = Path(__file__).parent / "data"
PART = 100
EXPERT = 3 * PART
"""Bytes: gate, up and down."""
DISK = ClockDisk(latency_s=1.0, bytes_per_s=100.0, piece_bytes=1 << 20)
"""An expert alone takes 1 + 300 / 100 seconds."""


def reader(disk: ClockDisk = DISK) -> ClockedReader:
    return ClockedReader(disk, {0: EXPERT, 1: EXPERT}, 4)


def demand(reads: ClockedReader, *keys: int) -> None:
    for key in keys:
        reads.submit(key, 0, False, 1)


def guess(reads: ClockedReader, *keys: int, turn: int = 5) -> None:
    for key in keys:
        reads.submit(key, 0, True, turn)


def test_latency_is_waited_for_once_and_bytes_come_one_after_another() -> None:
    reads = reader()
    demand(reads, 0, 1)
    assert reads.wait_any([0, 1]) == [0]
    assert reads.now == 4
    assert reads.wait_any([1]) == [1]
    assert reads.now == 7
    assert reads.counters()["demand_bytes"] == 2 * EXPERT
    assert reads.counters()["busy_ns"] == 7e9


def test_one_thread_waits_for_every_piece() -> None:
    reads = reader(ClockDisk(latency_s=1.0, bytes_per_s=100.0, threads=1))
    demand(reads, 0)
    reads.wait_any([0])
    assert reads.now == 3 * (1 + 1)


@pytest.mark.parametrize(("piece", "pieces"), [(100, 3), (60, 6), (50, 6), (40, 9), (30, 9)])
def test_a_short_last_piece_goes_along_with_the_one_before(piece: int, pieces: int) -> None:
    reads = reader(ClockDisk(0.0, 100.0, piece_bytes=piece))
    demand(reads, 0)
    reads.wait_any([0])
    assert reads.counters()["pieces"] == pieces
    assert reads.now == pytest.approx(3)


def test_arithmetic_goes_on_while_the_disk_reads() -> None:
    reads = reader()
    demand(reads, 0)
    reads.compute(3)
    assert (reads.now, reads.states[0]) == (3, READING)  # its last part is still to come
    reads.compute(2)
    assert (reads.now, reads.states[0]) == (5, READY)


def test_reading_takes_its_part_of_the_cores() -> None:
    reads = reader(ClockDisk(1.0, 100.0, piece_bytes=1 << 20, piece_cpu_s=0.5))
    demand(reads, 0)
    reads.compute(3)  # two pieces end in 3 seconds, the third in the one that they cost
    assert reads.now == 4.5


def test_who_waits_hears_of_it_a_little_later() -> None:
    reads = reader(ClockDisk(1.0, 100.0, piece_bytes=1 << 20, notice_s=0.5))
    demand(reads, 0, 1)
    assert reads.wait_any([0]) == [0]
    assert reads.now == 4.5
    reads.compute(4)
    assert reads.wait_any([1]) == [1]  # there already
    assert reads.now == 8.5


def test_times_that_vary_are_the_same_on_average_and_in_every_replay() -> None:
    disk = ClockDisk(0.0, 100.0, piece_bytes=1 << 20, spread=1.0)
    ends = []
    for _ in range(2):
        reads = ClockedReader(disk, {0: EXPERT}, 800)
        demand(reads, *range(800))
        took = []
        for key in range(800):
            started = reads.now
            reads.wait_any([key])
            took.append(reads.now - started)
        ends.append(reads.now)
    assert ends[0] == ends[1] == pytest.approx(800 * 3, rel=0.1)
    assert np.std(took) / np.mean(took) == pytest.approx(3**-0.5, rel=0.2)  # of three pieces


def test_demand_comes_before_guesses_and_always_finds_a_thread() -> None:
    reads = reader()
    guess(reads, 0, 1)  # three pieces of 0 are under way, none of 1
    assert reads.states[1] == QUEUED
    demand(reads, 4)
    reads.wait_any([4])
    assert reads.now == 1 + 3 + 3
    assert (reads.states[0], reads.states[1]) == (READY, READING)  # begun with nothing else left


def test_a_guess_that_is_asked_for_becomes_demand() -> None:
    reads = reader()
    guess(reads, 0, 1, 2)
    demand(reads, 2)
    assert reads.wait_any([1, 2]) == [2]
    assert reads.counters()["demand_bytes"] == EXPERT


def test_what_has_not_begun_is_taken_back() -> None:
    reads = reader()
    guess(reads, 0, 1, turn=5)
    guess(reads, 2, turn=6)
    assert reads.cancel_before(6) == [1]  # 0 is being read
    assert (reads.states[1], reads.states[2]) == (ABSENT, QUEUED)
    assert reads.counters()["cancelled"] == 1


def trace_of(path: Path, tokens: list[list[int]], layers: int = 2, k: int = 1) -> Trace:
    """A prompt for expert 3, too long to be guessed, then tokens: an expert a layer each."""
    header = TraceHeader(layers, 4, k, dict.fromkeys(range(layers), EXPERT))
    with TraceWriter(path, header) as writer:
        for layer in range(layers):
            writer.record(0, PREFILL, 0, layer, [[3]] * 9, [[1]] * 9)
        for step, experts in enumerate(tokens, 9):
            for layer, expert in enumerate(experts):
                writer.record(0, DECODE, step, layer, [expert], [1])
    return read_trace(path)


WORK = Work(layer_s=2.0, expert_s=10.0, token_s=5.0)
ALL = 1 << 30


def replay(
    trace: Trace, ahead: int, foretell: Foretell | None, work: Work = WORK, room: int = ALL
) -> Timing:
    header = trace.header
    shape = (header.expert_bytes, header.num_experts, header.num_experts_per_tok)
    setting = Setting(*shape, LRU, room, layers_ahead=ahead)
    return Replay(setting, DISK, work, foretell).run(passes_of(trace))


def test_a_token_without_guesses_is_arithmetic_and_waits(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.csv", [[3, 3], [0, 3], [0, 1]])
    found = replay(trace, 0, None)
    # A token computes 2 * (2 + 10) + 5; the second and third each wait 4 for an expert.
    assert (found.tokens, found.seconds, found.stall_s) == (3, 3 * 29 + 2 * 4, 8)
    assert found.compute_s == 3 * 29
    assert found.overlapped == 0
    decode = found.counts.decode
    assert (decode.hits, decode.misses) == (4, 2)


def test_what_is_guessed_in_time_is_not_waited_for(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.csv", [[3, 3], [3, 0]])
    found = replay(trace, 1, foresee_all)
    # Layer 0 computes for 10 after its guess, and layer 1 for 2 before it asks; 4 are needed.
    assert (found.seconds, found.stall_s, found.overlapped) == (2 * 29, 0, 1)
    assert (found.counts.decode.foreseen, found.counts.useful_bytes) == (1, EXPERT)


def test_a_late_guess_hides_a_part(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.csv", [[3, 3], [3, 0]])
    found = replay(trace, 1, foresee_all, Work(layer_s=1.0, expert_s=1.5))
    assert (found.stall_s, found.counts.decode.late) == (1.5, 1)
    assert found.overlapped == pytest.approx(2.5 / 4)


def test_wrong_guesses_make_demand_wait(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.csv", [[3, 0]])
    found = replay(trace, 1, lambda turns, place, ahead: [1], Work(layer_s=1.0, expert_s=1.5))
    # After 2.5 the third part of the wrong one is still under way, and ends after 4.
    assert found.stall_s == 4 + 3 - 2.5
    assert (found.counts.speculative_bytes, found.counts.useful_bytes) == (EXPERT, 0)


def test_two_layers_ahead_hide_what_one_cannot(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.csv", [[3, 3, 3], [3, 3, 0]], layers=3)
    fast = Work(layer_s=1.0, expert_s=1.0)
    assert [replay(trace, n, foresee_all, fast).stall_s for n in (0, 1, 2)] == [4, 2, 0]


def test_guesses_and_requests_take_their_time(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.csv", [[3, 3], [0, 3]])
    work = Work(layer_s=2.0, expert_s=10.0, guess_s=0.5, submit_s=0.25, wake_s=0.125)
    found = replay(trace, 1, foresee_all, work)
    # The gate of layer 1 is asked twice; one expert is asked for, and waited for meanwhile.
    assert found.seconds == 2 * 24 + 2 * 0.5 + 4 - 0.5 + 0.125
    assert found.stall_s == 4 - 0.25 - 0.5
    foreseen = replay(trace_of(tmp_path / "f.csv", [[3, 3], [3, 0]]), 1, foresee_all, work)
    assert foreseen.seconds == foreseen.compute_s == 2 * 24 + 2 * 0.5 + 0.25


def test_guesses_that_save_nothing_are_left_out_as_in_a_run(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.csv", [[3, 3]] * 100)
    found = replay(trace, 1, foresee_all, Work(layer_s=2.0, expert_s=10.0, guess_s=5.0))
    guesses = (found.compute_s - 100 * 24) / 5
    assert 1 <= guesses < 10  # now and then one, to know what it takes


def test_the_first_tokens_can_be_left_out(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.csv", [[0, 3], [3, 3]])
    shape = (trace.header.expert_bytes, 4, 1, LRU, ALL, 0)
    found = Replay(Setting(*shape), DISK, WORK, None).run(passes_of(trace), warm_up=1)
    assert (found.tokens, found.seconds, found.stall_s) == (1, 29, 0)


def test_recorded_guesses_are_found_by_layer_and_distance(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "t.csv", [[0, 1, 2]], layers=3)
    with TraceWriter(tmp_path / "g.csv", trace.header) as writer:
        for layer, ahead, ids in ((1, 1, [1, 0]), (2, 1, [2, 3]), (2, 2, [3, 2])):
            writer.record(0, DECODE, 9, layer, ids, [0.6, 0.4], ahead)
    guesses = Recorded(trace, read_trace(tmp_path / "g.csv"), 2)
    turns = passes_of(trace)[1]
    assert [guesses(turns, *at) for at in ((1, 1), (2, 1), (2, 2), (1, 2))] == [[1], [2], [3], ()]


def test_drawn_guesses_are_right_as_often_as_told() -> None:
    trace = read_trace(DATA / "traces" / "qwen3-30b-a3b.route.csv.gz")
    recalls = [[0.9, 0.4], [0.5]]
    drawn = Drawn(recalls, trace.header.num_experts)
    right = np.zeros((2, 6))
    turns = [(turns, place) for turns in passes_of(trace)[1:41] for place in range(len(turns))]
    for turns_of_pass, place in turns:
        routed = turns_of_pass[place].expert_ids[0].tolist()
        for ahead in (1, 2):
            guess = drawn(turns_of_pass, place, ahead)
            assert len(set(guess)) == len(routed)
            right[ahead - 1] += [expert in guess for expert in routed]
    right /= len(turns)
    assert right[0] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], abs=0.03)
    assert right[1] == pytest.approx([0.5] * 6, abs=0.03)
    assert drawn(*turns[0], 3) == ()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_decisions_are_those_of_the_live_engine(tmp_path: Path, share: float) -> None:
    path = tmp_path / "t.csv"
    with Engine.open(DATA / "golden" / "qwen3moe.gguf", context_length=64) as engine:
        total = engine.plan_memory("auto").total_expert_bytes
        room = int(share * total) + (64 << 10)
        plan = MemoryPlan(1 << 30, 0, 1 << 20, 0, room, 1, total)
        engine.stream(plan, StreamingOptions(io="pread", prefetch=False, policy="lru"))
        session = engine.session()
        with TraceRecorder(path, engine) as recorder:
            made = session.generate(
                list(range(1, 9)), SamplingParams(temperature=0), max_tokens=20,
                on_route=recorder.observer(session),
            )  # fmt: skip
            assert len(list(made)) == 20
        assert engine.streaming is not None
        live = engine.streaming.stats().decode
    trace = read_trace(path)
    header = trace.header
    shape = (header.expert_bytes, header.num_experts, header.num_experts_per_tok)
    found = Replay(Setting(*shape, LRU, room, 0), DISK, WORK, None).run(passes_of(trace))
    decode = found.counts.decode
    assert (decode.hits, decode.misses) == (live.hits, live.misses)
    assert decode.misses > 0


def test_more_room_is_never_slower_on_real_routing() -> None:
    trace = read_trace(DATA / "traces" / "qwen3-30b-a3b.route.csv.gz")
    header = trace.header
    shape = (header.expert_bytes, header.num_experts, header.num_experts_per_tok)
    disk, work = ClockDisk(80e-6, 3.5e9), Work(4e-4, 6e-5)
    make = partial(Decay, half_life=32)
    passes = passes_of(trace)[:41]
    found = [
        Replay(Setting(*shape, make, int(share * header.total_bytes), 0), disk, work, None).run(
            passes
        )
        for share in (0.1, 0.25, 0.5)
    ]
    assert [timing.tps for timing in found] == sorted(timing.tps for timing in found)
    assert found[0].stall_ms > 2 * found[2].stall_ms


@pytest.fixture
def recorded(alphabet: Path, tmp_path: Path) -> tuple[Path, Path]:
    trace, guesses = tmp_path / "t.csv", tmp_path / "g.csv"
    done = run("generate", alphabet, "-p", "hello", "-n", "6", "--temp", "0", "--trace", trace,
               "--stream", f"trace-guesses={guesses}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return trace, guesses


def test_the_command_tells_time_on_a_machine_that_is_described(
    alphabet: Path, recorded: tuple[Path, Path]
) -> None:
    machine = "cores=2,disk=1M,latency=2ms,memory=1G,layer=1ms"
    command = ("simulate", recorded[0], "--clock", "--model", alphabet, "--machine", machine)
    told = json.loads(run(*command, "--budget", "50%", "--layers-ahead", "0", "--json").stdout)
    assert told["disk"]["bytes_per_s"] == 1e6
    assert told["disk"]["latency_s"] == 0.002
    assert told["work"]["layer_s"] > 0.001
    (row,) = told["results"]
    assert (row["policy"], row["layers_ahead"], row["speculative_bytes"]) == ("decay", 0, 0)
    assert row["seconds"] == pytest.approx(row["compute_s"] + row["stall_s"])
    assert row["tps"] == pytest.approx(row["tokens"] / row["seconds"])
    shown = run(*command, "--budget", "50%", "--recall", "1", "--layers-ahead", "0,1").stdout
    assert "reading hidden, %" in shown


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--clock needs --model MODEL"),
        (("--model", "MODEL", "--policy", "belady"), "leave out belady"),
        (("--model", "MODEL", "--machine", "speed=3"), "--machine has no 'speed'"),
        (("--model", "MODEL", "--machine", "cores=2"), "has no disk"),
        (("--model", "MODEL", "--machine", "disk=fast"), "--machine disk=fast"),
        (("--model", "MODEL", "--machine", "nowhere.json"), "no file of a machine's speeds"),
        (("--model", "MODEL", "--split", "0.5"), "--split does not go with --clock"),
        (("--model", "MODEL", "--layers-ahead", "-1"), "expected whole numbers of 0 to 16"),
    ],
)
def test_what_cannot_be_timed_is_refused(
    alphabet: Path, recorded: tuple[Path, Path], options: tuple[str, ...], told: str
) -> None:
    given = [str(alphabet) if option == "MODEL" else option for option in options]
    done = run("simulate", recorded[0], "--clock", "--budget", "50%", *given)
    assert done.returncode != 0
    assert told in done.stderr


def test_a_trace_of_another_model_is_refused(alphabet: Path) -> None:
    path = DATA / "traces" / "qwen3-30b-a3b.route.csv.gz"
    done = run("simulate", path, "--clock", "--model", alphabet, "--machine", "disk=1G")
    assert done.returncode != 0
    assert "give the model of the trace" in done.stderr


def test_a_machine_of_another_computer_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    disks = {"device 1": DiskSpeed(1e-4, 3e9)}
    save_speeds(path, Speeds({"threads": 8}, "2026-01-01", 5e10, 1e-4, 0.0, {"F32": 2e10},
                             disks=disks))  # fmt: skip
    file = cast(GGUFHeader, None)  # which only a machine that is here is measured with
    found = machine_of(str(path), file, {"F32"})
    assert (found.disk, found.speeds.kernel_bytes_per_s) == (disks["device 1"], {"F32": 2e10})
    with pytest.raises(BudgetError, match="was not measured with Q8_0"):
        machine_of(str(path), file, {"F32", "Q8_0"})
    words = machine_of("disk=2G,cores=4,latency=50us", file, {"F32"})
    assert words.disk.latency_s == pytest.approx(50e-6)
    assert words.disk.bytes_per_s == 2e9
    assert words.speeds.kernel_bytes_per_s == {"F32": 4 * 8e9}


def test_a_tokens_seconds_are_spread_over_its_layers() -> None:
    demand = Demand(
        dense_bytes={"F16": 100}, expert_bytes={"Q8_0": 40}, num_layers=2, num_moe_layers=2,
        num_experts=8, num_experts_per_tok=2, kv_bytes=10, output_bytes={"F16": 60},
    )  # fmt: skip
    speeds = Speeds({}, "", 100.0, 0.5, 0.25, {"F16": 50.0, "Q8_0": 20.0})
    work = work_of(demand, speeds, 5)
    assert work.token_s == 60 / 50
    assert work.expert_s == 40 / 20 / 4
    assert work.layer_s == pytest.approx(40 / 50 / 2 + 50 / 50 / 2 + 0.75)
    assert work.token_total_s(2, 2) == pytest.approx(compute_s(demand, speeds, 5, streamed=True))
