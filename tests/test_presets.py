"""Entries on top of other entries: a system prompt, sampling, context and profile under a name."""

import json
from pathlib import Path

import pytest
from alphabet_model import ALPHABET, write_alphabet_model
from command_line import run
from serving import serving, user

from moestream.catalog import advice, catalog, remove_entry
from moestream.cli.opening import preset_system, with_preset
from moestream.errors import CatalogError
from moestream.gguf import GGUFFile
from moestream.server.model import Defaults


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOESTREAM_CONFIG", str(tmp_path))
    return tmp_path


def write(folder: Path, text: str) -> dict[str, str]:
    (folder / "models.toml").write_text(text)
    return {"MOESTREAM_CONFIG": str(folder)}


def layered(alphabet: Path) -> str:
    return f"""
[low]
source = "file:{alphabet}"
description = "the letters"
sampling = {{ temp = 0.5, top-k = 7 }}
context = 300

[high]
from = "low"
system_prompt = "Be brief."
sampling = {{ temp = 0.1 }}
"""


def test_an_entry_has_what_it_does_not_say_from_its_base(folder: Path, alphabet: Path) -> None:
    write(folder, layered(alphabet))
    spec = catalog()["high"]
    assert (spec.name, spec.source, spec.description) == ("high", f"file:{alphabet}", "the letters")
    assert (spec.context, spec.system_prompt) == (300, "Be brief.")
    assert spec.sampling == {"temp": 0.1, "top-k": 7}
    assert with_preset("high", {"context_length": None}) == {"context_length": 300}
    assert with_preset("high", {"context_length": 50}) == {"context_length": 50}
    assert preset_system("high", None) == "Be brief."
    assert preset_system("high", "") is None
    assert preset_system(str(alphabet), None) is None


def test_one_of_a_shipped_name_is_built_on_that(folder: Path) -> None:
    write(folder, '[demo]\nfrom = "demo"\ncontext = 99\n')
    spec = catalog()["demo"]
    assert (spec.source, spec.context, spec.architecture) == ("recipe:demo", 99, "llama")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[a]\nfrom = "b"\n[b]\nfrom = "a"\n', "is built on itself"),
        ('[a]\nfrom = "a"\n', "is from 'a', and there is none"),
        ('[a]\nfrom = "nothing"\n', "is from 'nothing', and there is none"),
        ('[a]\nsystem_prompt = "x"\n', "missing source, or from"),
        ('[a]\nfrom = "demo"\ncontext = 0\n', "context = 0 is not positive"),
        ('[a]\nbase = "demo"\n', "unknown key 'base'"),
    ],
)
def test_wrong_presets(folder: Path, text: str, told: str) -> None:
    write(folder, text)
    with pytest.raises(CatalogError, match=told):
        catalog()


def test_advice_of_a_shipped_base_goes_after_the_files(folder: Path, tmp_path: Path) -> None:
    write(folder, '[mine]\nfrom = "gpt-oss-20b"\nsampling = { min-p = 0.3, top-k = 3 }\n')
    path = write_alphabet_model(tmp_path / "x.gguf", advice={"temp": 0.4, "min_p": 0.1})
    with GGUFFile.open(path) as file:
        found = advice("mine", file).values
    assert found == {"temperature": 0.4, "top_p": 1.0, "min_p": 0.3, "top_k": 3}


def test_models_add_from(folder: Path, alphabet: Path) -> None:
    env = write(folder, f'[low]\nsource = "file:{alphabet}"\n')
    flags = ["-sys", 'Say "a".', "--temp", "0", "--samplers", "kt", "-c", "200"]
    env_too = env | {"MOESTREAM_TOP_P": "0.3"}
    done = run("models", "add", "mine", "--from", "low", *flags, env=env_too)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    spec = catalog()["mine"]
    assert (spec.base, spec.context, spec.system_prompt) == ("low", 200, 'Say "a".')
    assert spec.sampling == {"temp": 0.0, "samplers": "top_k;temperature"}
    told = run("models", "info", "mine", env=env).stdout
    assert "from" in told
    assert 'Say "a".' in told
    done = run("generate", "mine", "-p", "hello", "--json", env=env)
    value = json.loads(done.stdout)
    assert (value["text"], value["advised_sampling"]["temperature"]) == (ALPHABET, 0.0)
    bare = json.loads(run("generate", alphabet, "-p", "hello", "--json").stdout)
    assert value["prompt_tokens"] == bare["prompt_tokens"] + len('system\nSay "a".\n') + 2
    assert "context 200" in done.stderr
    with_own = json.loads(
        run("generate", "mine", "-p", "hello", "-sys", "", "--json", env=env).stdout
    )
    assert with_own["prompt_tokens"] == bare["prompt_tokens"]
    done = run("chat", "mine", stdin=b"/system\n", env=env)
    assert 'system prompt: Say "a".' in done.stderr


def test_a_base_stays_as_long_as_it_is_one(folder: Path, alphabet: Path) -> None:
    env = write(folder, layered(alphabet))
    with pytest.raises(CatalogError, match="high are built on 'low'"):
        remove_entry("low")
    done = run("models", "rm", "high", "--yes", env=env)
    assert done.returncode == 0, done.stderr
    assert alphabet.exists()
    remove_entry("low")
    assert "low" not in catalog()


def test_models_add_wants_one_source(folder: Path, alphabet: Path) -> None:
    env = write(folder, "")
    for arguments in (["x"], ["x", str(alphabet), "--from", "demo"]):
        done = run("models", "add", *arguments, env=env)
        assert done.returncode == 2
        assert "one of the two" in done.stderr
    done = run("models", "add", "x", "--from", "nothing", env=env)
    assert done.returncode == 1
    assert "is from 'nothing', and there is none" in done.stderr
    assert (folder / "models.toml").read_text() == ""


def test_a_server_has_the_system_prompt_where_a_chat_has_none(alphabet: Path) -> None:
    with serving(alphabet, defaults=Defaults(system="Be brief.")) as server:

        def prompt(*messages: dict[str, str]) -> str:
            text = server.post("/apply-template", messages=messages).json()["prompt"]
            assert isinstance(text, str)
            return text

        assert prompt(*user("hi")).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
        own = prompt({"role": "system", "content": "Own."}, *user("hi"))
        assert "Be brief." not in own
