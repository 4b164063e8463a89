"""``moestream models`` as a person uses it, the hub being a server on this machine."""

import json
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run, start
from fake_hub import FakeHub, fake_hub

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


def test_list_says_what_is_here_and_what_runs(hub: FakeHub, alphabet: Path) -> None:
    models = {m["name"]: m for m in json.loads(run("models", "list", "--json").stdout)["models"]}
    assert models["qwen3-30b-a3b"]["supported"] is True
    assert models["nemotron-3-nano-30b-a3b"]["verdict"] == "unsupported"
    assert not any(model["path"] for model in models.values())
    assert run("models", "add", "mine", alphabet, "--licence", "MIT").returncode == 0
    done = run("models", "list", "--here", "--json")
    (mine,) = json.loads(done.stdout)["models"]
    assert (mine["name"], mine["path"], mine["yours"]) == ("mine", str(alphabet), True)
    assert mine["verdict"] == "fits"
    table = run("models", "list").stdout
    assert "active" in table
    assert max(map(len, table.splitlines())) <= 80
    assert "yes, all in memory" in table


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
