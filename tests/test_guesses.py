"""Guesses: recorded beside routing, narrowed by mass, and what they would have been worth."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.errors import TraceError
from moestream.layers.moe import RoutingEvent
from moestream.machine.calibration import LAYERS, write_tiny
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions
from moestream.traces.format import DECODE, PREFILL, TraceHeader, read_trace
from moestream.traces.guess_recorder import GuessRecorder
from moestream.traces.guesses import Foresight, rows_ahead
from moestream.traces.recording import TraceRecorder
from moestream.traces.simulator import PolicySpec, Simulator
from moestream.traces.writer import TraceWriter

GOLDEN = Path(__file__).parent / "data" / "golden"
HEADER = TraceHeader(2, 4, 1, {0: 10, 1: 10})


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Layer 1 uses experts 0, 1, 2, 0; the gate is sure at both ends, not between."""
    routing, guesses = tmp_path / "routing.csv", tmp_path / "guesses.csv"
    with TraceWriter(routing, HEADER) as writer:
        for layer in (0, 1):
            writer.record(0, PREFILL, 0, layer, [[3]], [[1]])
        for step, expert in enumerate([0, 1, 2, 0], 1):
            writer.record(0, DECODE, step, 0, [0], [1])
            writer.record(0, DECODE, step, 1, [expert], [1])
    with TraceWriter(guesses, HEADER) as writer:
        for step, ids, weights in (
            (1, [0, 2], [0.9, 0.1]),
            (2, [2, 1], [0.5, 0.4]),
            (3, [1, 2], [0.5, 0.4]),
            (4, [3, 0], [0.9, 0.1]),
        ):
            writer.record(0, DECODE, step, 1, ids, weights)
    return routing, guesses


@pytest.mark.parametrize(
    ("mass", "recall", "foreseen", "wasted"),
    [(None, 0.25, 1, 1), (0.8, 0.75, 3, 1), (1.0, 1.0, 3, 2)],
)
def test_counts_are_worked_by_hand(
    files: tuple[Path, Path], mass: float | None, recall: float, foreseen: int, wasted: int
) -> None:
    routing, guesses = map(read_trace, files)
    simulator = Simulator(routing, foresight=Foresight(routing, guesses, mass))
    assert simulator.foresight is not None
    (record,) = simulator.foresight.recall(simulator.sets).values()
    assert record.recall == recall
    replay = simulator.run(PolicySpec("lru"), 1000)
    assert (replay.lookups, replay.hits) == (8, 4)  # 0 in layer 0 is read once, 0, 1, 2 in 1
    assert (replay.foreseen, replay.wasted) == (foreseen, wasted)
    assert replay.covered_rate == (4 + foreseen) / 8


def test_guesses_of_another_run_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    routing = read_trace(files[0])
    with TraceWriter(tmp_path / "late.csv", HEADER) as writer:
        writer.record(0, DECODE, 99, 1, [0], [1])
    with pytest.raises(TraceError, match="no guess for a token"):
        Foresight(routing, read_trace(tmp_path / "late.csv"))
    guesses = read_trace(files[1])
    other = replace(guesses, header=replace(HEADER, num_experts=5))
    with pytest.raises(TraceError, match="num_experts is 5, in "):
        Foresight(routing, other)


@pytest.mark.parametrize("mass", [None, 0.5])
def test_recorded_guesses_are_those_that_a_streamed_run_makes(
    tmp_path: Path, mass: float | None
) -> None:
    routing, guesses = tmp_path / "r.csv.gz", tmp_path / "g.csv.gz"
    with Engine.open(GOLDEN / "qwen3moe.gguf", context_length=64) as engine:
        options = StreamingOptions(io="pread", prefetch_mass=mass)
        engine.stream(MemoryPlan(1 << 30, 0, 1 << 20, 0, 1 << 16, 1, 1), options)
        engine.streaming.prefetcher.tries_without = False
        session = engine.session()
        with TraceRecorder(routing, engine) as first, GuessRecorder(guesses, engine) as second:
            observers = first.observer(session), second.observer(session)

            def observe(event: RoutingEvent) -> None:
                for observer in observers:
                    observer(event)

            # The prompt is too long to be guessed.
            prompt, greedy = list(range(1, 12)), SamplingParams(temperature=0)
            made = session.generate(prompt, greedy, max_tokens=7, on_route=observe)
            assert len(list(made)) == 7
        live = engine.streaming.stats().recall
    trace = read_trace(routing)
    foresight = Foresight(trace, read_trace(guesses), mass)
    assert foresight.recall(Simulator(trace).sets) == live


def test_guesses_are_recorded_of_three_layers_ahead(tmp_path: Path) -> None:
    path = tmp_path / "guesses.csv"
    with Engine.open(write_tiny(tmp_path / "tiny.gguf"), backend="cpu") as engine:
        session = engine.session()
        with GuessRecorder(path, engine) as recorder:
            made = session.generate([1, 2, 3], max_tokens=3, on_route=recorder.observer(session))
            tokens = len(list(made)) - 1
    guesses = read_trace(path)
    width = 2 * guesses.header.num_experts_per_tok
    for ahead in (1, 2, 3):
        layers = rows_ahead(guesses, ahead)["layer"].tolist()
        assert {*layers} == set(range(ahead, LAYERS))
        assert len(layers) == tokens * width * (LAYERS - ahead)
    assert len(guesses.rows) == tokens * width * (3 * LAYERS - 1 - 2 - 3)


def test_commands_write_and_read_guesses(alphabet: Path, files: tuple[Path, Path]) -> None:
    done = run("simulate", files[0], "--guesses", files[1], "--policy", "lru", "--budget", "1000",
               "--prefetch-mass", "0.8", "--json")  # fmt: skip
    told = json.loads(done.stdout)
    assert told["recall"] == {"1": 0.75}
    assert told["results"][0]["covered_rate"] == 7 / 8
    done = run("simulate", files[0], "--guesses", files[1], "--policy", "lru", "--budget", "1000")
    assert "in memory or foreseen, %" in done.stdout
    done = run("simulate", files[0], "--prefetch-mass", "0.8")
    assert done.returncode == 2
    assert "pass them with --guesses" in done.stderr
    path = files[0].parent / "alphabet.csv"
    done = run("generate", alphabet, "-p", "hello", "-n", "3", "--stream", f"trace-guesses={path}")
    assert done.returncode == 0
    assert path.read_text(encoding="utf-8").startswith("# route_trace v1")


def test_guesses_of_a_pass_that_is_broken_off_are_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "guesses.csv"
    with Engine.open(GOLDEN / "qwen3moe.gguf", backend="cpu") as engine:
        session = engine.session()
        last = engine.config.num_layers - 1
        with GuessRecorder(path, engine) as recorder:
            record = recorder.observer(session)

            def observe(event: RoutingEvent) -> None:
                record(event)
                if session.decoding and len(session.tokens) == 5 and event.layer == last:
                    raise RuntimeError

            with pytest.raises(RuntimeError):
                list(session.generate([1, 2, 3], max_tokens=8, on_route=observe))
    assert sorted({*read_trace(path).rows["step"].tolist()}) == [3, 4]
