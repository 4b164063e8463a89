"""Models that other programs have here: found by name, listed, run where they lie, left alone."""

import hashlib
import json
import os
from pathlib import Path
from shutil import copyfile

import pytest
from alphabet_model import ALPHABET
from command_line import run

from moestream.catalog import catalog, find_spec, in_stores, locate
from moestream.errors import ModelNotFoundError
from moestream.hub import is_reference, parse_reference
from moestream.hub.stores import hf_cache, llama_cpp, lmstudio, ollama


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alphabet: Path) -> Path:
    """A home with a model in the store of each program."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "LLAMA_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("MOESTREAM_CONFIG", str(tmp_path / "config"))
    repository = tmp_path / ".cache/huggingface/hub/models--org--tiny-GGUF"
    for commit in ("old", "new"):
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (repository / "blobs").mkdir(exist_ok=True)
        blob = repository / "blobs" / commit
        copyfile(alphabet, blob)
        (snapshot / "tiny-Q4_K_M.gguf").symlink_to(blob)
    (repository / "snapshots/new/tiny-Q8_0.gguf").symlink_to(repository / "blobs/gone")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("old")
    studio = tmp_path / ".lmstudio/models/org/small-GGUF"
    studio.mkdir(parents=True)
    copyfile(alphabet, studio / "small-Q6_K.gguf")
    cache = tmp_path / ".cache/llama.cpp"
    cache.mkdir(parents=True)
    copyfile(alphabet, cache / "org_nano-GGUF_nano-IQ4_XS.gguf")
    (cache / "manifest=org=nano-GGUF=latest.json").write_text("{}")
    write_ollama(tmp_path / ".ollama/models", alphabet)
    return tmp_path


def write_ollama(root: Path, model: Path) -> None:
    data = model.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    (root / "blobs").mkdir(parents=True)
    (root / "blobs" / digest.replace(":", "-")).write_bytes(data)
    layers = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "0" * 64},
        {"mediaType": "application/vnd.ollama.image.model", "digest": digest},
    ]
    for name in (
        "registry.ollama.ai/library/letters/latest",
        "registry.ollama.ai/library/letters/7b",
        "registry.ollama.ai/someone/own/latest",
        "hf.co/org/letters-GGUF/Q4_K_M",
    ):
        manifest = root / "manifests" / name
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps({"layers": layers}))


def inside(path: Path | None) -> str:
    return "" if path is None else path.as_posix()


def test_hf_looks_into_the_caches(home: Path) -> None:
    for name in (
        "hf:org/tiny-GGUF",
        "hf:org/tiny-GGUF:Q4_K_M",
        "hf:org/tiny-GGUF:tiny-Q4_K_M.gguf",
    ):
        spec = find_spec(name)
        assert spec is not None
        assert inside(locate(spec)).endswith("/snapshots/old/tiny-Q4_K_M.gguf")
    assert hf_cache.find(parse_reference("org/tiny-GGUF:Q8_0")) is None  # a link to nothing
    assert hf_cache.find(parse_reference("org/other")) is None
    spec = find_spec("hf:org/nano-GGUF:IQ4_XS")
    assert spec is not None
    assert inside(locate(spec)).endswith("llama.cpp/org_nano-GGUF_nano-IQ4_XS.gguf")
    assert llama_cpp.find(parse_reference("org/nano:IQ4_XS")) is None


def test_a_cache_may_lie_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = parse_reference("org/tiny-GGUF")
    for name, value in (("HF_HOME", "x"), ("HF_HUB_CACHE", "y"), ("XDG_CACHE_HOME", "z")):
        with monkeypatch.context() as changed:
            changed.setenv(name, str(home / value))
            assert hf_cache.find(reference) is None
    monkeypatch.setenv("HF_HOME", str(home / ".cache/huggingface"))
    assert hf_cache.find(reference) is not None


@pytest.mark.parametrize(
    "name",
    [
        "letters",
        "letters:latest",
        "letters:7b",
        "someone/own",
        "hf.co/org/letters-GGUF:Q4_K_M",
        "registry.ollama.ai/library/letters",
    ],
)
def test_ollamas_names(home: Path, name: str) -> None:
    path = ollama.find(name)
    assert path is not None
    assert path.parent.name == "blobs"


@pytest.mark.parametrize("name", ["", ":7b", "../x", "a/../../b", "a/b/c/d", "x:../y"])
def test_names_that_are_none(home: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="names nothing"):
        ollama.find(name)
    with pytest.raises(ModelNotFoundError, match="names nothing"):
        lmstudio.find(name)


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", '{"layers": 3}', '{"layers": [{"mediaType": "x"}]}', "\xff", '{"layers": []}'],
)
def test_manifests_that_are_none(home: Path, manifest: str) -> None:
    path = home / ".ollama/models/manifests/registry.ollama.ai/library/bad/latest"
    path.parent.mkdir()
    path.write_bytes(manifest.encode("latin-1"))
    assert ollama.find("bad") is None
    assert len(ollama.models()) == 4


def test_a_digest_is_no_path(home: Path) -> None:
    path = home / ".ollama/models/manifests/registry.ollama.ai/library/bad/latest"
    path.parent.mkdir()
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "../../secret"}
    path.write_text(json.dumps({"layers": [layer]}))
    (home / ".ollama/secret").write_text("x")
    assert ollama.find("bad") is None


def test_all_are_listed_and_run_where_they_lie(home: Path) -> None:
    env = {"HOME": str(home)} | dict.fromkeys(
        ("HF_HUB_CACHE", "LLAMA_CACHE", "OLLAMA_MODELS", "XDG_CACHE_HOME"), ""
    )
    names = [
        "hf:org/tiny-GGUF:Q4_K_M",
        "hf:org/nano-GGUF",
        "lmstudio:org/small-GGUF:Q6_K",
        "ollama:letters:latest",
        "ollama:letters:7b",
        "ollama:someone/own:latest",
        "ollama:hf.co/org/letters-GGUF:Q4_K_M",
    ]
    assert set(in_stores(catalog())) == set(names)
    before = sorted(os.walk(home / ".ollama"))
    told = json.loads(run("models", "list", "--all", "--here", "--json", env=env).stdout)
    assert {each["name"] for each in told["models"]} == set(names)
    assert not json.loads(run("models", "list", "--here", "--json", env=env).stdout)["models"]
    for name in names[:4]:
        done = run("generate", name, "-p", "hello", "-q", env=env)
        assert done.stdout == f"{ALPHABET}\n", done.stderr
        done = run("models", "rm", name, "--yes", env=env)
        assert done.returncode == 1
        assert "another program's, and stays" in done.stderr
    assert sorted(os.walk(home / ".ollama")) == before
    done = run("models", "pull", "hf:org/tiny-GGUF", env=env | {"HF_HUB_OFFLINE": "1"})
    assert done.stdout.endswith("/snapshots/old/tiny-Q4_K_M.gguf\n")
    assert "here already, in Hugging Face's cache" in done.stderr
    done = run("generate", "ollama:nothing", "-p", "hi", env=env)
    assert "there is no nothing in Ollama's store" in done.stderr


def test_an_entry_can_name_one(home: Path) -> None:
    env = {"HOME": str(home), "OLLAMA_MODELS": "", "MOESTREAM_CONFIG": str(home / "config")}
    done = run("models", "add", "mine", "ollama:letters", env=env)
    assert done.returncode == 0, done.stderr
    assert run("models", "path", "mine", env=env).stdout.startswith(f"{home}/.ollama/models/blobs/")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("https://huggingface.co/org/repo", "hf:org/repo"),
        ("https://huggingface.co/org/repo/", "hf:org/repo"),
        ("huggingface.co/org/repo?not-for-all-audiences=true", "hf:org/repo"),
        ("https://huggingface.co/org/repo/tree/main", "hf:org/repo"),
        ("https://huggingface.co/org/repo/tree/main/Q4_K_M", "hf:org/repo"),
        ("https://huggingface.co/org/repo/blob/main/a-Q8_0.gguf", "hf:org/repo:a-Q8_0.gguf"),
        (
            "https://huggingface.co/org/repo/resolve/main/d/a%20b.gguf?download=true",
            "hf:org/repo:d/a b.gguf",
        ),
        ("hf.co/org/repo:Q4_K_M", "hf:org/repo:Q4_K_M"),
    ],
)
def test_addresses_of_the_hub(text: str, meant: str) -> None:
    assert is_reference(text)
    assert str(parse_reference(text)) == meant


@pytest.mark.parametrize("text", ["https://example.com/org/repo", "org/repo", "hf.co", "./hf.co/x"])
def test_what_is_no_address_of_the_hub(text: str) -> None:
    assert not is_reference(text)
