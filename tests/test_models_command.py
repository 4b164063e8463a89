"""``moestream models`` as a person uses it, the hub being a server on this machine."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from command_line import run, start
from fake_hub import FakeHub, fake_hub

from moestream.hub import repository_folder
from moestream.hub.partial import there_bytes

FILE = "model-Q4_K_M.gguf"


@pytest.fixture
def hub(tmp_path: Path, alphabet: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    other = random.Random(0).randbytes(50_000)
    with fake_hub({FILE: alphabet.read_bytes(), "model-Q8_0.gguf": other}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("MOESTREAM_CONFIG", str(tmp_path / "config"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def test_pull_run_and_remove(hub: FakeHub, alphabet: Path) -> None:
    done = run("models", "pull", "hf:org/model")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.read_bytes() == alphabet.read_bytes()
    assert "org/model: model-Q4_K_M.gguf" in done.stderr
    assert "; checked" in done.stderr
    assert "here already" in run("models", "pull", "hf:org/model").stderr
    assert run("models", "path", "hf:org/model:Q4_K_M").stdout == f"{path}\n"
    options = ["-p", "ab", "--raw", "-n", "1", "-q", "--backend", "reference"]
    assert run("generate", "hf:org/model", *options).returncode == 0

    refused = run("models", "rm", "hf:org/model")
    assert refused.returncode == 2
    assert "pass --yes" in refused.stderr
    removed = run("models", "rm", "hf:org/model", "--yes", "--json")
    assert json.loads(removed.stdout)["freed_bytes"] == len(hub.files[FILE])
    assert not path.exists()
    again = run("models", "rm", "hf:org/model", "--yes")
    assert (again.returncode, again.stderr) == (1, "error: nothing of hf:org/model is here\n")


def test_an_interrupted_pull_goes_on(hub: FakeHub) -> None:
    hub.files[FILE] = random.Random(1).randbytes(40 << 20)
    hub.hold = threading.Event()
    process = start("models", "pull", "hf:org/model")
    entered = hub.entered.wait(60)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert entered
    assert process.returncode == 130
    assert b"go on with: moestream models pull hf:org/model" in told
    hub.hold.set()
    hub.hold = None
    done = run("models", "pull", "hf:org/model", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert Path(outcome["path"]).read_bytes() == hub.files[FILE]
    assert outcome["size_bytes"] == 40 << 20


def test_offline_is_respected(hub: FakeHub) -> None:
    done = run("models", "pull", "hf:org/model", env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1
    assert done.stderr == (
        "error: org/model was not asked for: HF_HUB_OFFLINE is set; unset it to use the network\n"
    )
    assert hub.requests == []


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("hf:org/none", "has no org/none, or it is private"),
        ("hf:org/model:Q2_K", "org/model has no Q2_K; it has Q4_K_M, Q8_0"),
        ("org/model", "did you mean hf:org/model?"),
        ("olmoe", "did you mean olmoe-1b-7b?"),
        ("zzz", "see moestream models list. Any on the hub is hf:ORG/REPO[:QUANT|FILE]"),
    ],
)
def test_what_cannot_be_pulled_is_one_clear_line(model: str, complaint: str, hub: FakeHub) -> None:
    done = run("models", "pull", model)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert complaint in done.stderr


def test_info_of_a_repository_asks_what_it_has(hub: FakeHub) -> None:
    done = run("models", "info", "hf:org/model", "--json")
    assert done.returncode == 0, done.stderr
    info = json.loads(done.stdout)
    assert info["path"] is None
    assert [entry["quant"] for entry in info["hub"]] == ["Q8_0", "Q4_K_M"]
    assert "on the hub\n  quant" in run("models", "info", "hf:org/model").stdout


def test_list_says_what_is_here_and_what_runs(hub: FakeHub, alphabet: Path, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/models.toml").write_text(
        '[other]\nsource = "hf:org/other:Q4_K_M"\narchitecture = "rnd1"\n'
    )
    models = {m["name"]: m for m in json.loads(run("models", "list", "--json").stdout)["models"]}
    assert models["qwen3-30b-a3b"]["supported"] is True
    assert models["other"]["verdict"] == "unsupported"
    assert not any(model["path"] for model in models.values())
    assert run("models", "add", "mine", alphabet, "--licence", "MIT").returncode == 0
    done = run("models", "list", "--here", "--json")
    (mine,) = json.loads(done.stdout)["models"]
    assert (mine["name"], mine["path"], mine["yours"]) == ("mine", str(alphabet), True)
    assert mine["verdict"] == "fits"
    table = run("models", "list").stdout
    assert "active" in table
    assert max(map(len, table.splitlines())) <= 80
    assert "all in memory" in table
    assert "tok/s" in table


def test_list_is_for_the_memory_that_is_named(hub: FakeHub) -> None:
    def verdicts(memory: str) -> dict[str, dict[str, Any]]:
        told = json.loads(run("models", "list", "--memory", memory, "--json").stdout)
        return {model["name"]: model for model in told["models"]}

    small, large = verdicts("2G"), verdicts("256G")
    assert small["qwen3-30b-a3b"]["verdict"] == "below the floor"
    assert large["qwen3-30b-a3b"]["verdict"] == "fits"
    # Of those that fit, the largest of those that are good to begin with.
    (best,) = [name for name, model in large.items() if model["recommended"]]
    assert large[best]["verdict"] == "fits"
    assert not [name for name, model in small.items() if model["recommended"] and name == best]
    assert f"{best} " in run("models", "list", "--memory", "256G").stdout
    refused = run("models", "list", "--memory", "50%")
    assert (refused.returncode, "no amount of memory" in refused.stderr) == (2, True)


def measured(cache: Path) -> None:
    """Put there what a machine was measured to do: any figures, so long as they are known."""
    from moestream.backends.cpu import CpuBackend
    from moestream.machine.speeds import DiskSpeed, Speeds, fingerprint, save_speeds
    from moestream.quants import GGMLQuantizationType

    types = dict.fromkeys(GGMLQuantizationType.__members__, 2e9)
    cache.mkdir(exist_ok=True)
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    disks = {f"device {cache.stat().st_dev}": DiskSpeed(1e-4, 1e9)}
    speeds = Speeds(fingerprint(CpuBackend()), today, 1e10, 1e-5, 1e-5, types, types, 1e11, disks)
    save_speeds(cache / "machine.json", speeds)


def test_list_search_and_plan_say_the_same(hub: FakeHub, alphabet: Path, tmp_path: Path) -> None:
    pytest.importorskip("moestream._native", reason="needs the compiled part")
    measured(tmp_path / "cache")
    plan = json.loads(run("plan", "hf:org/model", "--memory", "8G", "--json").stdout)
    point = next(
        each
        for each in plan["budgets"]
        if each["budget_bytes"] == plan["suggested"]["budget_bytes"]
    )
    found = json.loads(run("models", "search", "model", "--memory", "8G", "--json").stdout)
    (model,) = found["models"]
    assert (model["name"], model["verdict"]) == ("hf:org/model:Q4_K_M", plan["case"])
    assert model["generation_tps"] == pytest.approx(point["tps"])
    assert (model["downloads"], model["quants"]) == (12, ["Q4_K_M", "Q8_0"])
    assert run("models", "add", "mine", alphabet).returncode == 0
    told = json.loads(run("models", "list", "--here", "--memory", "8G", "--json").stdout)
    (mine,) = told["models"]
    assert mine["generation_tps"] == pytest.approx(point["tps"])
    table = run("models", "search", "model", "--memory", "8G").stdout
    assert "hf:org/model:Q4_K_M" in table
    assert "all in memory" in table


def test_list_needs_no_kernels(hub: FakeHub) -> None:
    script = (
        "import sys; sys.modules['moestream._native'] = None\n"
        "sys.argv = ['moestream', 'models', 'list', '--json']\n"
        "from moestream.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    models = {model["name"]: model for model in json.loads(done.stdout)["models"]}
    assert models["qwen3-30b-a3b"]["verdict"] != "unknown"
    assert models["qwen3-30b-a3b"]["generation_tps"] is None


def test_a_search_says_why_a_model_does_not_run(hub: FakeHub, tmp_path: Path) -> None:
    measured(tmp_path / "cache")
    hub.found = [
        {"id": "org/model", "downloads": "many", "gguf": {"architecture": "whisper"}},
        {"id": "org/none"},
        {"id": "../../etc"},
        7,
    ]
    done = run("models", "search", "model", "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["models"]
    assert (first["verdict"], first["reason"]) == ("unsupported", "no: whisper")
    assert first["downloads"] is None
    assert second["verdict"] == "unknown"
    assert "has no org/none, or it is private" in second["reason"]


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "could not be read from http://127.0.0.1:9"),
        ({"HF_HUB_OFFLINE": "1"}, "was not asked for: HF_HUB_OFFLINE is set"),
        ({}, "has no repository with GGUF files for 'zzz'; try fewer words"),
    ],
)
def test_a_search_in_vain_is_one_clear_line(
    env: dict[str, str], complaint: str, hub: FakeHub
) -> None:
    done = run("models", "search", "zzz", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()[-1:]
    assert line.startswith("error: ")
    assert complaint in line


def test_a_pull_that_is_killed_loses_nothing(hub: FakeHub) -> None:
    hub.files[FILE] = random.Random(1).randbytes(40 << 20)
    hub.bytes_per_s = 4e6
    process = start("models", "pull", "hf:org/model")
    folder = repository_folder("org/model")
    while not any(part.stat().st_blocks > 16384 for part in folder.glob("*.part")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    (part,) = (path for path in folder.glob("*.part") if ".note" not in path.name)
    there = there_bytes(part, 40 << 20)
    assert hub.together > 1
    assert there > 4 << 20
    hub.bytes_per_s = None
    hub.requests.clear()
    outcome = json.loads(run("models", "pull", "hf:org/model", "--json").stdout)
    assert outcome["fetched_bytes"] == (40 << 20) - there
    asked = [request.headers["range"][6:].split("-") for request in hub.of_cdn()]
    assert sum(int(end) + 1 - int(begin) for begin, end in asked) == (40 << 20) - there
    assert Path(outcome["path"]).read_bytes() == hub.files[FILE]


def test_list_has_what_was_pulled_without_a_name(hub: FakeHub) -> None:
    assert run("models", "pull", "hf:org/model:Q8_0").returncode == 0
    (pulled,) = json.loads(run("models", "list", "--here", "--json").stdout)["models"]
    assert (pulled["name"], pulled["verdict"]) == ("hf:org/model:Q8_0", "unknown")
    assert run("models", "path", pulled["name"]).stdout.strip() == pulled["path"]
    assert run("models", "add", "mine", "hf:org/model:Q8_0").returncode == 0
    (named,) = json.loads(run("models", "list", "--here", "--json").stdout)["models"]
    assert named["name"] == "mine"


def test_the_demo_is_not_asked_for_offline(tmp_path: Path) -> None:
    env = {"MOESTREAM_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "yes"}
    done = run("models", "pull", "demo", env=env)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "was not asked for: HF_HUB_OFFLINE is set" in line


def test_entries_of_ones_own(hub: FakeHub, alphabet: Path) -> None:
    done = run("models", "add", "theirs", "hf:org/model:Q4_K_M", "--description", "of the hub")
    assert done.returncode == 0, done.stderr
    assert "moestream models pull theirs" in done.stderr
    pulled = json.loads(run("models", "pull", "theirs", "--json").stdout)
    assert pulled["fetched_bytes"] == len(hub.files[FILE])
    info = run("models", "info", "theirs").stdout
    assert "of the hub" in info
    assert pulled["path"] in info
    assert run("models", "rm", "theirs", "--yes").returncode == 0
    assert run("models", "path", "theirs").returncode == 1
    assert not Path(pulled["path"]).exists()

    run("models", "add", "mine", alphabet)
    assert run("models", "rm", "mine", "--yes").returncode == 0
    assert alphabet.exists()
    missing = run("models", "add", "x", alphabet.parent / "no.gguf")
    assert missing.returncode == 1
    assert "is no file; expected a .gguf file" in missing.stderr
