"""What a model's maker advises of sampling, and what goes before it."""

import json
from pathlib import Path
from typing import Any

import pytest
from alphabet_model import write_alphabet_model
from command_line import run
from serving import serving

from moestream.catalog import advice, parse_catalog
from moestream.catalog.entries import shipped_catalog
from moestream.chat.settings import Settings
from moestream.engine.advice import file_advice, read_sampling
from moestream.engine.options import SamplingChoice, SamplingParams
from moestream.errors import CatalogError
from moestream.gguf import GGUFFile
from moestream.server.model import Defaults

KEYS: dict[str, float | str] = {"temp": 0.6, "top_k": 20, "top_p": 0.95, "penalty_repeat": 1.05}


@pytest.fixture(scope="module")
def advising(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("advice") / "advising.gguf"
    return write_alphabet_model(path, advice=KEYS)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advising: Path) -> dict[str, str]:
    """A folder of the user's, with an entry that has advice of its own."""
    entry = f'[mine]\nsource = "file:{advising}"\nsampling = {{ temp = 0.1, min-p = 0.2 }}\n'
    (tmp_path / "models.toml").write_text(entry)
    monkeypatch.setenv("MOESTREAM_CONFIG", str(tmp_path))
    return {"MOESTREAM_CONFIG": str(tmp_path)}


def test_all_keys_of_llama_cpp_are_read(tmp_path: Path) -> None:
    keys: dict[str, float | str] = {
        "sequence": "top_k;temperature",
        "top_k": 7,
        "top_p": 0.9,
        "min_p": 0.01,
        "xtc_probability": 0.3,
        "xtc_threshold": 0.2,
        "temp": 1.5,
        "penalty_last_n": 32,
        "penalty_repeat": 1.1,
        "mirostat": 2,
        "mirostat_tau": 4.0,
        "mirostat_eta": 0.2,
    }
    path = write_alphabet_model(tmp_path / "all.gguf", advice=keys)
    with GGUFFile.open(path) as file:
        found = file_advice(file)
    assert found == {
        "samplers": ("top_k", "temperature"),
        "top_k": 7,
        "top_p": 0.9,
        "min_p": 0.01,
        "xtc_probability": 0.3,
        "xtc_threshold": 0.2,
        "temperature": 1.5,
        "repeat_last_n": 32,
        "repeat_penalty": 1.1,
        "mirostat": 2,
        "mirostat_tau": 4.0,
        "mirostat_eta": 0.2,
    }


def test_what_makes_no_sense_is_left_out_and_told(tmp_path: Path) -> None:
    keys: dict[str, float | str] = {"temp": -1.0, "top_k": "many", "top_p": 0.5, "min_p": 7}
    path = write_alphabet_model(tmp_path / "wrong.gguf", advice=keys)
    done = run("generate", path, "-p", "hi", "-n", "1", "-s", "1")
    assert done.returncode == 0
    assert "general.sampling.temp of the file is left out: temp is -1.0" in done.stderr
    assert "general.sampling.top_k of the file is left out: top-k is 'many'" in done.stderr
    assert "\nsampling: top-p 0.5 (as its file advises)\n" in done.stderr


def test_generate_takes_it_and_tells_once(advising: Path) -> None:
    done = run("generate", advising, "-p", "hi", "-n", "1", "--temp", "0", "-s", "1")
    told = "sampling: top-k 20, top-p 0.95, repeat-penalty 1.05 (as its file advises)"
    assert done.stderr.count(told) == done.stderr.count("sampling") == 1
    done = run("generate", advising, "-p", "hi", "-n", "1", "--json", "-q")
    assert json.loads(done.stdout)["advised_sampling"] == {
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "repeat_penalty": 1.05,
    }
    flags = ["--temp", "0.8", "--top-k", "40", "--top-p", "1", "--repeat-penalty", "1"]
    done = run("generate", advising, "-p", "hi", "-n", "1", *flags)
    assert "sampling" not in done.stderr


def test_the_environment_and_config_toml_are_the_users_word(advising: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("top-k = 9\n")
    env = {"MOESTREAM_CONFIG": str(tmp_path), "MOESTREAM_TEMP": "0.3"}
    done = run("generate", advising, "-p", "hi", "-n", "1", "--json", env=env)
    told = json.loads(done.stdout)["advised_sampling"]
    assert told == {"top_p": 0.95, "repeat_penalty": 1.05}


def test_a_user_entry_goes_before_the_file(mine: dict[str, str], advising: Path) -> None:
    with GGUFFile.open(advising) as file:
        found, plain = advice("mine", file), advice(str(advising), file)
    assert found.values["temperature"] == 0.1
    assert (found.values["min_p"], found.values["top_k"]) == (0.2, 20)
    assert plain.values["temperature"] == 0.6
    assert found.told({}) == (
        "sampling: top-k 20, top-p 0.95, repeat-penalty 1.05 (as its file advises); "
        "temp 0.1, min-p 0.2 (as your models.toml advises)"
    )


def test_the_file_goes_before_a_shipped_entry(tmp_path: Path) -> None:
    path = write_alphabet_model(tmp_path / "x.gguf", advice={"temp": 0.4})
    with GGUFFile.open(path) as file:
        found = advice("gpt-oss-20b", file)
    assert found.values == {"temperature": 0.4, "top_p": 1.0}
    assert found.told({}) == (
        "sampling: temp 0.4 (as its file advises); top-p 1.0 (as models.toml advises)"
    )


def test_chat_takes_each_models_own(advising: Path, alphabet: Path) -> None:
    lines = f"/set\n/set top-k 5\n/model {alphabet}\n/set\n/model {advising}\n/set\n"
    done = run("chat", advising, "-s", "1", stdin=lines.encode())
    assert done.returncode == 0
    settings = [line.split() for line in done.stderr.splitlines()]
    temps = [row[-1] for row in settings if row[:1] == ["temp"]]
    top_k = [row[-1] for row in settings if row[:1] == ["top-k"] and len(row) == 2]
    assert temps == ["0.6", "0.8", "0.6"]
    assert top_k == ["20", "5", "5"]


def test_a_server_takes_it_and_requests_go_before(advising: Path) -> None:
    choice = SamplingChoice({"top_k": 3})
    with GGUFFile.open(advising) as file:
        sampling = choice.over(advice(str(advising), file).values)
    with serving(advising, defaults=Defaults(sampling)) as server:
        own = server.get("/props").json()["default_generation_settings"]["params"]
        assert (own["temperature"], own["top_k"], own["top_p"]) == (0.6, 3, 0.95)
        asked = {"prompt": "a", "n_predict": 1, "temperature": 1.5}
        told = server.post("/completion", **asked).json()["generation_settings"]
        assert (told["temperature"], told["top_k"]) == (1.5, 3)


@pytest.mark.parametrize(
    ("sampling", "told"),
    [
        ("{ temp = -1 }", "temp is -1"),
        ("{ colour = 1 }", "'colour' is no setting of sampling"),
        ("{ logit-bias = 1 }", "'logit-bias' is no setting"),
        ("3", "is not a dict"),
    ],
)
def test_an_entry_is_checked_when_it_is_read(sampling: str, told: str) -> None:
    with pytest.raises(CatalogError, match=told):
        parse_catalog(f'[x]\nsource = "file:y"\nsampling = {sampling}\n', "here")


def test_shipped_advice_has_a_source() -> None:
    for spec in shipped_catalog().values():
        assert bool(spec.sampling) == bool(spec.sampling_source), spec.name


def test_settings_by_any_name_of_their_options() -> None:
    values: dict[str, Any] = {"temperature": 1, "top_k": 3.0, "typical-p": 0.5, "samplers": "kt"}
    assert read_sampling(values) == {
        "temperature": 1.0,
        "top_k": 3,
        "typical_p": 0.5,
        "samplers": ("top_k", "temperature"),
    }


def test_what_is_set_in_a_chat_is_said() -> None:
    settings = Settings()
    settings.set("temp", "0.2")
    assert settings.said == {"temperature": 0.2}
    assert settings.sampling == SamplingParams(temperature=0.2)
