"""What the page is told of the experts: counted right, only while somebody looks, and kept."""

import json
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from alphabet_model import ALPHABET
from serving import Served, serving
from streamed import GOLDEN, options_of, plan

from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.engine.streamed_passes import pass_tokens
from moestream.layers.batch import CHUNK_TOKENS
from moestream.layers.moe import RoutingEvent
from moestream.machine import speeds
from moestream.profiles.names import load_profile
from moestream.server import experts as endpoints
from moestream.server import residency as residency_module
from moestream.server.jobs import Ended, Failed, Job
from moestream.server.judging import GuessJudge
from moestream.server.residency import Collector
from moestream.server.scheduler import Scheduler
from moestream.server.schema import RESIDENCY
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


class Seen:
    """What frames told, added up."""

    def __init__(self, collector: Collector) -> None:
        self.places = len(collector.sizes) * collector.num_experts
        self.frames: list[dict] = []
        self.tokens = 0
        self.state: dict = {}
        self.counts = {name: Counter() for name in ("used", "read", "guessed", "vain")}

    def take(self, frame: dict) -> None:
        self.frames.append(frame)
        self.tokens += frame["tokens"]
        self.state = frame.get("state", self.state)
        for name, count in self.counts.items():
            pairs = np.frombuffer(b64decode(frame[name]), "<u4").reshape(-1, 2)
            count.update(dict(pairs.tolist()))

    def marked(self, name: str) -> np.ndarray:
        bits = np.frombuffer(b64decode(self.state[name]), np.uint8)
        return np.unpackbits(bits, count=self.places, bitorder="little").astype(bool)


def answered(engine: Engine, collector: Collector, **more: Any) -> tuple[Seen, Counter]:
    """What was told of an answer, and which experts it used, as somebody else heard."""
    heard: Counter = Counter()
    rows = {layer: row for row, layer in enumerate(collector.sizes)}

    def count(event: RoutingEvent) -> None:
        base = rows[event.layer] * collector.num_experts
        heard.update((event.expert_ids + base).ravel().tolist())

    over, seen = threading.Event(), Seen(collector)
    asked = {"prompt": list(range(2, 32)), "max_tokens": 6, **more}
    with Scheduler(engine, on_route=count if "prompt" not in more else None) as scheduler:

        def begin() -> None:
            collector.begin(seen.take)
            scheduler.look_on(collector.hear)

        scheduler.call(begin).result(5)
        job = Job(sampling=SamplingParams(temperature=0.0), **asked)
        scheduler.submit(
            job, lambda events: over.set() if isinstance(events[-1], Ended | Failed) else None
        )
        assert over.wait(20)
        scheduler.call(collector.tell).result(5)
        scheduler.call(collector.end).result(5)
    return seen, heard


@pytest.mark.parametrize("io", METHODS)
@pytest.mark.parametrize("name", ["qwen3moe", "deepseek2-v2-q5_0"])
def test_uses_are_counted_as_they_are(name: str, io: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency_module, "EVERY_S", 1e-4)  # so that frames end anywhere
    with Engine.open(GOLDEN / f"{name}.gguf", context_length=128, threads=1) as engine:
        collector = Collector(engine)
        total = sum(collector.sizes.values()) * collector.num_experts
        engine.stream(plan(total // 2), options_of(io=io))
        seen, heard = answered(engine, collector, max_tokens=40)
        assert seen.counts["used"] == heard
        assert seen.tokens == 30 + 39
        assert len(seen.frames) > 2
        counts = engine.streaming.residency.counts
        asked = counts.decode.misses + counts.prefill.misses
        assert seen.counts["read"].total() == asked
        assert io == "madvise" or asked > 0
        right = counts.decode.foreseen + counts.decode.late
        guessed, vain = (seen.counts[name].total() for name in ("guessed", "vain"))
        # One that its layer did not use next may stay, and be used later.
        assert guessed <= right <= guessed + vain
        assert guessed > 0 or counts.speculative_bytes == 0


def test_a_long_prompt_is_told_of_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as ever, though it goes through a layer after the other as a whole."""
    monkeypatch.setattr(residency_module, "EVERY_S", 1e-4)
    with Engine.open(GOLDEN / "qwen3moe.gguf", context_length=2048, threads=1) as engine:
        collector = Collector(engine)
        engine.stream(plan(1 << 20), options_of(io="pread"))
        config, streaming = engine.config, engine.streaming
        assert pass_tokens(streaming, config, CHUNK_TOKENS, in_order=False) >= 1500
        prompt = [2 + n % 30 for n in range(1500)]
        seen, _ = answered(engine, collector, prompt=prompt, max_tokens=1)
        assert len(seen.frames) > 3
        uses = config.num_experts_per_tok * len(collector.sizes)
        assert (seen.tokens, seen.counts["used"].total()) == (1500, 1500 * uses)
        assert not seen.counts["vain"]
        turns = engine.streaming.residency.counts.prefill.turns
        assert turns == 3 * len(collector.sizes)


def test_the_state_is_what_the_slots_hold() -> None:
    with Engine.open(GOLDEN / "qwen3moe.gguf", context_length=128, threads=1) as engine:
        collector = Collector(engine)
        total = sum(collector.sizes.values()) * collector.num_experts
        engine.stream(plan(total * 15 // 16), options_of(io="pread"))
        seen, _ = answered(engine, collector)
        here, kept = seen.marked("here"), seen.marked("kept")
        marks = engine.streaming.residency.marks()[: seen.places]
        assert not (here & (marks & IN_MEMORY == 0)).any()  # a guess may come later
        assert (kept == (marks & KEPT != 0)).all()
        assert 0 < kept.sum() <= here.sum() < seen.places
        told = seen.frames[-1]["totals"]
        sizes = np.repeat(list(collector.sizes.values()), collector.num_experts)
        assert told["resident_bytes"] == sizes[here].sum()
        assert told["kept_bytes"] == sizes[here & kept].sum()


def test_without_streaming_use_alone_is_told() -> None:
    with Engine.open(GOLDEN / "qwen3moe.gguf", context_length=128, threads=1) as engine:
        seen, heard = answered(engine, Collector(engine))
        assert seen.counts.pop("used") == heard
        assert not any(seen.counts.values())
        assert not seen.state


def test_a_guess_is_judged_when_its_layer_is_asked_next() -> None:
    judge = GuessJudge(4)
    judge.add([5, 6, 9], [1, 1, 2])
    # Layers 0, 1 and 0 again; the third guess is for layer 2, which comes later.
    places = np.array([[0, 1], [4, 5], [2, 3]])
    ones = np.ones(3, int)
    used, vain = judge.judge(np.array([0, 1, 0]), ones, places)
    assert (used.tolist(), vain.tolist()) == ([5], [])
    later = np.array([[4, 7], [6, 7], [8, 9], [9, 10]])
    used, vain = judge.judge(np.array([1, 2]), np.array([2, 2]), later)
    assert (used.tolist(), vain.tolist()) == ([6, 9], [])
    judge.add([1, 1, -1], [0, 3])
    used, vain = judge.judge(np.array([0, 0]), ones[:2], np.array([[1, 2], [2, 3]]))
    assert (used.tolist(), vain.tolist()) == ([], [1, 1])


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


def test_the_stream_tells_what_its_description_says(server: Served) -> None:
    described = server.get("/openapi.json").json()
    (content,) = described["paths"][RESIDENCY]["get"]["responses"]["200"]["content"].values()
    assert [each["$ref"][-5:] for each in content["schema"]["contentSchema"]["oneOf"]] == [
        "Model",
        "Frame",
    ]
    with server.http.stream("GET", RESIDENCY) as stream:
        lines = stream.iter_lines()
        asking = threading.Thread(target=server.chat)
        asking.start()
        for kind in ("model", "frame"):
            name = f"#/components/schemas/Residency{kind.title()}"
            jsonschema.validate(told(lines, kind), {"$ref": name, **described})
        asking.join()


def test_without_the_page_it_is_not_described(alphabet: Path) -> None:
    with serving(alphabet, no_page=True) as served:
        paths = served.get("/openapi.json").json()["paths"]
        assert "/v1/chat/completions" in paths
        assert not any("moestream" in path for path in paths)


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
    here = server.model.engine.plan_memory("auto")
    here = replace(here, context_bytes=here.kv_bytes + here.total_expert_bytes // 4)
    monkeypatch.setattr(server.model.engine, "plan", here)
    points = server.get("/v1/moestream/forecast").json()["points"]
    others = here.dense_bytes + here.kv_bytes + here.process_bytes
    for point in points:
        share = (point["budget_bytes"] - others) / here.total_expert_bytes
        assert point["experts_share"] == pytest.approx(min(share, 1))
    budgets, shares = ([p[key] for p in points] for key in ("budget_bytes", "experts_share"))
    assert budgets == sorted(budgets)
    assert shares[-1] == 1
    assert points[-1]["case"] == "fits"
    assert all(p["low_tps"] <= p["tps"] <= p["high_tps"] for p in points)
