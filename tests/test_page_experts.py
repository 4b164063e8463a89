"""What the page is told of the experts: counted right, only while somebody looks, and kept."""

import json
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from alphabet_model import ALPHABET
from serving import Served, serving
from streamed import GOLDEN, options_of, plan

from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.layers.moe import RoutingEvent
from moestream.machine import speeds
from moestream.profiles.names import load_profile
from moestream.server import experts as endpoints
from moestream.server.jobs import Ended, Failed, Job
from moestream.server.residency import Collector
from moestream.server.scheduler import Scheduler
from moestream.streaming.view import IN_MEMORY, KEPT

METHODS = ("pread", "madvise")


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESTREAM_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def server(alphabet: Path) -> Iterator[Served]:
    with serving(alphabet) as served:
        engine = served.model.engine
        share = sum(t.n_bytes for n, t in engine.file.tensors.items() if "_exps" in n) * 3 // 4
        engine.stream(plan(share), options_of(io="pread"))
        yield served


def answered(engine: Engine, collector: Collector, tokens: int = 6) -> tuple[dict, Counter]:
    """A frame of an answer, and which experts it used, as somebody else heard."""
    heard: Counter = Counter()
    rows = {layer: row for row, layer in enumerate(collector.sizes)}

    def count(event: RoutingEvent) -> None:
        base = rows[event.layer] * collector.num_experts
        heard.update((event.expert_ids + base).ravel().tolist())

    over = threading.Event()
    with Scheduler(engine, on_route=count) as scheduler:

        def begin() -> None:
            collector.begin()
            scheduler.look_on(collector.hear)

        scheduler.call(begin).result(5)
        sampling = SamplingParams(temperature=0.0)
        job = Job(prompt=list(range(2, 32)), sampling=sampling, max_tokens=tokens)
        scheduler.submit(
            job, lambda events: over.set() if isinstance(events[-1], Ended | Failed) else None
        )
        assert over.wait(20)
        frame = scheduler.call(collector.frame).result(5)
        scheduler.call(collector.end).result(5)
    return frame, heard


def counts(pairs: list[int]) -> Counter:
    return Counter(dict(zip(pairs[::2], pairs[1::2], strict=True)))


@pytest.mark.parametrize("io", METHODS)
@pytest.mark.parametrize("name", ["qwen3moe", "deepseek2-v2-q5_0"])
def test_uses_are_counted_as_they_are(name: str, io: str) -> None:
    with Engine.open(GOLDEN / f"{name}.gguf", context_length=128, threads=1) as engine:
        collector = Collector(engine)
        total = sum(collector.sizes.values()) * collector.num_experts
        engine.stream(plan(total // 2), options_of(io=io))
        frame, heard = answered(engine, collector)
        assert counts(frame["used"]) == heard
        assert frame["tokens"] == 30 + 5
        read, used = counts(frame["read"]), counts(frame["used"])
        assert all(read[place] <= used[place] for place in read)
        residency = engine.streaming.residency
        asked = residency.counts.decode.misses + residency.counts.prefill.misses
        if io == "pread":
            assert sum(read.values()) >= asked > 0
        judged = sum(counts(frame["guessed"]).values()) + sum(counts(frame["vain"]).values())
        assert judged > 0 or residency.counts.speculative_bytes == 0


def test_the_state_is_what_the_slots_hold() -> None:
    with Engine.open(GOLDEN / "qwen3moe.gguf", context_length=128, threads=1) as engine:
        collector = Collector(engine)
        total = sum(collector.sizes.values()) * collector.num_experts
        engine.stream(plan(total * 15 // 16), options_of(io="pread"))
        frame, _ = answered(engine, collector)
        state = np.frombuffer(b64decode(frame["state"]), np.uint8)
        assert len(state) == len(collector.sizes) * collector.num_experts
        marks = engine.streaming.residency.marks()
        assert not (state & IN_MEMORY & ~marks[: len(state)]).any()  # a guess may come later
        assert ((state & KEPT) == (marks[: len(state)] & KEPT)).all()
        assert 0 < (state & KEPT != 0).sum() <= (state & IN_MEMORY != 0).sum() < len(state)
        here = (state & IN_MEMORY != 0).reshape(-1, collector.num_experts).sum(axis=1)
        told = frame["totals"]["resident_bytes"]
        assert told == int(here @ np.array(list(collector.sizes.values())))


def test_without_streaming_use_alone_is_told() -> None:
    with Engine.open(GOLDEN / "qwen3moe.gguf", context_length=128, threads=1) as engine:
        frame, heard = answered(engine, Collector(engine))
        assert counts(frame["used"]) == heard
        assert (frame["read"], frame["guessed"], frame["vain"]) == ([], [], [])
        assert "state" not in frame


def test_nothing_is_noted_while_nobody_looks(server: Served) -> None:
    server.chat()
    assert not server.model.onlookers.collector._noted
    assert server.model.scheduler._passes.onlooker is None


def test_the_stream_tells_of_an_answer_and_ends_with_its_listener(server: Served) -> None:
    with server.http.stream("GET", "/v1/moestream/residency") as stream:
        lines = stream.iter_lines()
        model = told(lines, "model")
        assert (model["layers"], model["num_experts"], model["streamed"]) == ([0], 4, True)
        asking = threading.Thread(target=server.chat)
        asking.start()
        tokens = 0
        while not tokens >= len(ALPHABET):
            frame = told(lines, "frame")
            tokens += frame["tokens"]
        asking.join()
        assert set(frame["totals"]) >= {"hits", "misses", "read_bytes", "stall_s"}
    for _ in range(100):
        if server.model.scheduler._passes.onlooker is None:
            return
        threading.Event().wait(0.05)
    raise AssertionError("it goes on without a listener")


def told(lines: Iterator[str], kind: str) -> dict:
    """The next event of a kind."""
    for line in lines:
        if line == f"event: {kind}":
            return json.loads(next(lines).removeprefix("data: "))
    raise AssertionError("the stream ended")


def test_a_stream_does_not_hold_up_the_end(alphabet: Path) -> None:
    with (
        serving(alphabet) as served,
        served.http.stream("GET", "/v1/moestream/residency") as stream,
    ):
        lines = stream.iter_lines()
        told(lines, "model")
        began = time.perf_counter()
        served.listener.close()
        assert time.perf_counter() - began < 3
        assert not any(line.startswith("event: model") for line in lines)


def body(**changes: object) -> dict:
    return {"name": "page", "tokens": 3, "uses": [[3, 0, 2, 1]], **changes}


def test_a_profile_is_saved_listed_and_told(server: Served) -> None:
    assert server.get("/v1/moestream/profiles").json() == {"profiles": []}
    saved = server.post("/v1/moestream/profiles", **body())
    assert saved.status_code == 200
    kept = load_profile("page")
    assert kept.uses.tolist() == [[3, 0, 2, 1]]
    kept.require(endpoints.Fingerprint.of(server.model.engine.file), "")
    assert server.get("/v1/moestream/profiles").json() == {"profiles": ["page"]}
    assert server.get("/v1/moestream/profiles/page").json()["uses"] == [[3, 0, 2, 1]]
    assert server.post("/v1/moestream/profiles", **body()).status_code == 409
    assert server.post("/v1/moestream/profiles", **body(replace=True)).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../x"},
        {"name": "x.json"},
        {"name": "/elsewhere/x.json"},
        {"name": ""},
        {"uses": [[1, 2, 3]]},
        {"uses": []},
        {"uses": [[1, 2, 3, -4]]},
        {"uses": [[0, 0, 0, 0]]},
        {"uses": [[2**60, 0, 0, 0]]},
        {"tokens": 0},
    ],
)
def test_what_is_no_profile_is_not_kept(server: Served, changes: dict, tmp_path: Path) -> None:
    assert server.post("/v1/moestream/profiles", **body(**changes)).status_code == 400
    assert not list(tmp_path.rglob("*.json"))


def test_only_profiles_of_the_folder_are_told(server: Served, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text("{}")
    for name in ("own", "..%2Fown", "own.json", str(tmp_path / "own.json").replace("/", "%2F")):
        assert server.get(f"/v1/moestream/profiles/{name}").status_code in (400, 404)


def test_the_forecast_is_plans(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = speeds.Speeds({}, "2026-01-01", 1e10, 1e-5, 1e-5)
    machine.kernel_bytes_per_s = machine.batch_bytes_per_s = {"F32": 1e10}
    machine.attention_macs_per_s = 1e10
    disk = speeds.DiskSpeed(1e-4, 1e9)
    monkeypatch.setattr(endpoints, "known_speeds", lambda *_: (machine, disk))
    points = server.get("/v1/moestream/forecast").json()["points"]
    budgets, shares = ([p[key] for p in points] for key in ("budget_bytes", "experts_share"))
    assert budgets == sorted(budgets)
    assert shares[-1] == 1
    assert points[-1]["case"] == "fits"
    assert all(p["low_tps"] <= p["tps"] <= p["high_tps"] for p in points)
