"""``moestream plan``, as a process."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alphabet_model import write_alphabet_model
from command_line import Argument, run, usage_error
from fake_hub import FakeHub, fake_hub

from oracle.fuzz_files import give_tokenizer
from oracle.gguf_parts import take_apart

pytest.importorskip("moestream._native", reason="needs the compiled part")

DATA = Path(__file__).parent / "data"
QWEN = DATA / "traces" / "qwen3-30b-a3b.route.csv.gz"
EXPERT_BYTES = 3 * 32 * 264 * 4


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"MOESTREAM_CACHE": str(tmp_path_factory.mktemp("cache"))}


def plan(model: Argument, cache: dict[str, str], *arguments: Argument) -> dict[str, Any]:
    done = run("plan", model, *arguments, "--json", env=cache)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


@pytest.mark.slow
def test_the_machine_is_measured_once_and_then_known(alphabet: Path, cache: dict[str, str]) -> None:
    first = run("plan", alphabet, env=cache)
    assert first.returncode == 0, first.stderr
    assert "measuring the disk" in first.stderr
    words = " ".join(first.stdout.split())
    for part in (
        "experts 396 KiB",
        "experts of one token 198 KiB",
        "hit rates as of the demo model (2 of 32 experts",
        "budget experts here hits read a token tok/s sure of",
        "in a line it fits in ",
    ):
        assert part in words, part
    assert run("plan", alphabet, env=cache).stderr == ""
    known = [path.read_bytes() for path in Path(cache["MOESTREAM_CACHE"]).rglob("*.json")]
    quiet = run("plan", alphabet, "--measure", "-q", env=cache)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "in a line" in quiet.stdout
    assert known != [path.read_bytes() for path in Path(cache["MOESTREAM_CACHE"]).rglob("*.json")]


def test_json_has_the_sums(alphabet: Path, cache: dict[str, str]) -> None:
    value = plan(alphabet, cache, "--memory", "16G", "-c", "100")
    assert value["expert_bytes"] == 4 * EXPERT_BYTES
    assert value["expert_bytes_per_token"] == 2 * EXPERT_BYTES
    assert value["kv_bytes"] == 256 * 132 * 2 * 2  # in a whole block
    assert value["case"] == "fits"
    assert value["suggested"]["flags"] == []
    taken = value["suggested"]["budget_bytes"] / (16 << 30)
    assert 0.85 <= taken < 0.88  # some is left to the system
    assert all(p["low_tps"] < p["tps"] < p["high_tps"] for p in value["budgets"])


def test_budgets_that_are_asked_for_are_told_of(alphabet: Path, cache: dict[str, str]) -> None:
    value = plan(alphabet, cache, "--budget", "1M,2G", "-c", "100")
    small, large, *_ = value["budgets"]
    assert (small["budget_bytes"], large["budget_bytes"]) == (1 << 20, 2 << 30)
    assert (small["experts_share"], large["experts_share"]) == (0, 1)
    assert small["hit_rate"] == 0
    assert small["read_bytes"] == 2 * EXPERT_BYTES
    assert small["tps"] < large["tps"]


def test_the_time_to_the_first_token_is_told_of_prompts(
    alphabet: Path, cache: dict[str, str]
) -> None:
    value = plan(alphabet, cache, "--budget", "2G")
    assert [p["tokens"] for p in value["budgets"][0]["prompts"]] == [1000, 10_000]
    value = plan(alphabet, cache, "--budget", "2G", "--prompt-tokens", "70")
    (prompt,) = value["budgets"][0]["prompts"]
    assert prompt["read_bytes"] == pytest.approx(4 * EXPERT_BYTES)
    assert 0 < prompt["low_s"] < prompt["ttft_s"] < prompt["high_s"]
    told = run("plan", alphabet, "--prompt-tokens", "70,12000", env=cache)
    words = " ".join(told.stdout.split())
    assert "time to the first token budget after 70 tokens after 12,000 tokens" in words


def test_too_little_memory_is_the_verdict(alphabet: Path, cache: dict[str, str]) -> None:
    value = plan(alphabet, cache, "--memory", "1M")
    assert value["case"] == "too little"
    assert "too little" in value["verdict"]
    assert "it takes" in value["verdict"]


def test_hit_rates_are_those_of_a_trace_if_one_is_given(
    alphabet: Path, cache: dict[str, str], tmp_path: Path
) -> None:
    own = tmp_path / "own.csv"
    assert run("generate", alphabet, "-p", "hello", "--trace", own).returncode == 0
    assert plan(alphabet, cache, "--trace", own)["hit_rates_from"] == str(own)
    other = run("plan", alphabet, "--trace", QWEN, env=cache)
    assert other.returncode == 1
    assert "is a trace of another model" in other.stderr
    assert "architecture is 'qwen3moe' there and 'llama' here" in other.stderr


def test_a_budget_that_generate_refuses_is_refused(alphabet: Path, cache: dict[str, str]) -> None:
    done = run("plan", alphabet, "--memory", "1G", "--budget", "2G", env=cache)
    assert done.returncode == 1
    assert "--budget 2048M is more than the 1024M of --memory" in done.stderr
    value = plan(alphabet, cache, "--memory", "1G", "--budget", "1M")
    assert value["case"] == "too little"
    assert value["verdict"].startswith("1.00 MiB is too little")


def with_words(name: str, folder: Path) -> Path:
    """A golden model with a tokenizer: without one it is no model to plan for."""
    parts = take_apart(DATA / "golden" / f"{name}.gguf")
    give_tokenizer(parts, random.Random(0))
    path = folder / f"{name}.gguf"
    path.write_bytes(bytes(parts))
    return path


@pytest.mark.parametrize(
    ("option", "amount", "complaint"),
    [
        ("--memory", "1", "a budget of 1 is 1 bytes; expected an amount such as 1G"),
        ("--budget", "2G,1", "a budget of 1 is 1 bytes; expected an amount such as 1G"),
        ("--memory", "4K", "4K is less than any model takes; expected an amount such as 6G"),
    ],
)
def test_amounts_that_no_machine_has_are_refused(
    option: str, amount: str, complaint: str, alphabet: Path
) -> None:
    done = run("plan", alphabet, option, amount)
    assert done.returncode == 2
    assert complaint in " ".join(done.stderr.split())


def test_a_dense_model_has_nothing_to_stream(cache: dict[str, str], tmp_path: Path) -> None:
    value = plan(with_words("llama", tmp_path), cache, "--memory", "1G")
    assert value["expert_bytes"] == 0
    assert value["case"] == "fits"
    assert value["disk"] is None


def test_what_cannot_run_is_told_in_one_line(tmp_path: Path, cache: dict[str, str]) -> None:
    path = write_alphabet_model(tmp_path / "m.gguf", architecture="gptoss")
    done = run("plan", path, env=cache)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "cannot run here: architecture 'gptoss'" in line


def test_nothing_is_built_to_plan_for_it(tmp_path: Path) -> None:
    done = run("plan", "demo", env={"MOESTREAM_CACHE": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.startswith("error: demo is not here yet")
    assert list(tmp_path.iterdir()) == []


# Models that are on the hub alone.


@pytest.fixture
def hub(
    alphabet: Path, cache: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHub]:
    with fake_hub({"model-Q4_K_M.gguf": alphabet.read_bytes()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("MOESTREAM_CONFIG", str(tmp_path / "config"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def test_a_model_on_the_hub_is_planned_for_as_if_it_were_here(
    hub: FakeHub, alphabet: Path, cache: dict[str, str]
) -> None:
    there, here = plan("hf:org/model", cache), plan(alphabet, cache)
    same = {"dense_bytes", "expert_bytes", "kv_bytes", "file_bytes", "case", "hit_rates_from"}
    assert {key: there[key] for key in same} == {key: here[key] for key in same}
    assert (there["here"], here["here"]) == (False, True)
    assert there["disk"] is not None
    told = run("plan", "hf:org/model", env=cache)
    assert "get it with: moestream models pull hf:org/model" in told.stdout
    assert not list(Path(cache["MOESTREAM_CACHE"]).rglob("*.gguf*"))
    inspected = json.loads(run("inspect", "hf:org/model", "--json", env=cache).stdout)
    assert inspected["sizes"]["expert_bytes"] == here["expert_bytes"]


@pytest.mark.parametrize("command", ["plan", "inspect"])
@pytest.mark.parametrize(
    ("model", "env", "complaint"),
    [
        ("hf:org/none", {}, "has no org/none, or it is private"),
        ("hf:org/model:Q2_K", {}, "org/model has no Q2_K; it has Q4_K_M"),
        ("hf:org/model", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_the_hub_cannot_give_is_one_line(
    command: str, model: str, env: dict[str, str], complaint: str, hub: FakeHub
) -> None:
    done = run(command, model, env=env)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert complaint in line


def test_hit_rates_are_those_of_a_profile_if_one_is_given(
    alphabet: Path, cache: dict[str, str], tmp_path: Path
) -> None:
    env = cache | {"MOESTREAM_DATA": str(tmp_path)}
    options = ["--raw", "-p", "abcdefgh", "-n", "0"]
    assert run("profile", "save", "letters", alphabet, *options, env=env).returncode == 0
    value = plan(alphabet, env, "--profile", "letters", "--budget", "1M,2G")
    assert value["hit_rates_from"] == "profile letters"
    other = run("plan", with_words("qwen3moe", tmp_path), "--profile", "letters", env=env)
    assert other.returncode == 1
    assert "profile letters is of alphabet.gguf, not of qwen3moe.gguf" in other.stderr
    both = run("plan", alphabet, "--profile", "letters", "--trace", QWEN, env=env)
    assert both.returncode == 2
    assert "--trace and --profile exclude each other" in both.stderr


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--memory lots", "'lots' is no budget"),
        ("--memory 50%", "'50%' is no amount of memory"),
        ("--memory 1G,2G", "one amount is expected"),
        ("--budget 1G,,2G", "is no budget"),
        ("--prompt-tokens 1000,0", "'1000,0' is no number of tokens; expected 1 to 10,000,000"),
        ("--prompt-tokens many", "'many' is no number of tokens"),
        ("--trace nowhere.csv", "'nowhere.csv' does not exist"),
        ("-c -1", "-1, expected a whole number of 0 or more"),
    ],
)
def test_wrong_input_is_a_usage_error(flags: str, complaint: str, alphabet: Path) -> None:
    assert complaint in usage_error("plan", alphabet, *flags.split())
