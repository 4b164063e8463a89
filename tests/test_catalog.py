from pathlib import Path

import pytest

from moestream import demo
from moestream.catalog import ModelSpec, catalog, parse_catalog, resolve
from moestream.errors import CatalogError, ModelNotFoundError

TABLE = {
    "description": '"a model"',
    "licence": '"MIT"',
    "architecture": '"llama"',
    "source": '"recipe:tiny"',
    "size_bytes": "1_000",
}


def toml(name: str = "tiny", **changes: str | None) -> str:
    lines = [f"{key} = {value}" for key, value in (TABLE | changes).items() if value is not None]
    return "\n".join([f"[{name}]", *lines])


def test_shipped_catalog_has_the_demo() -> None:
    spec = catalog()["demo"]
    assert spec.architecture == "llama"
    assert spec.licence == "Apache-2.0"
    assert spec.kind == "recipe"


def test_parse_reads_every_key() -> None:
    digest = "0f" * 32
    assert parse_catalog(toml(sha256=f'"{digest}"'), "x.toml") == {
        "tiny": ModelSpec("tiny", "a model", "MIT", "llama", "recipe:tiny", 1000, digest)
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[tiny", "x.toml is not TOML"),
        ("tiny = 3", "expected a table, [tiny], not 3"),
        (toml(name='"Big One"'), "model 'Big One': a name is of lower-case letters"),
        (toml(colour='"red"'), "unknown key 'colour'; the keys are description"),
        (toml(licence=None, source=None), "missing licence, source"),
        (toml(size_bytes='"1 GB"'), "size_bytes = '1 GB' is not a int"),
        (toml(size_bytes="true"), "size_bytes = True is not a int"),
        (toml(size_bytes="0"), "size_bytes = 0 is not positive"),
        (toml(source='"ftp:tiny"'), "source = 'ftp:tiny' is not KIND:WHAT with a KIND of recipe"),
        (toml(source='"recipe:"'), "source = 'recipe:' is not KIND:WHAT"),
        (toml(source='"recipe"'), "source = 'recipe' is not KIND:WHAT"),
        (toml(sha256='"abc"'), "sha256 = 'abc' is not 64"),
    ],
)
def test_parse_names_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(text, "x.toml")
    assert complaint in str(caught.value)
    assert "x.toml" in str(caught.value)


def test_resolve_takes_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model.gguf"
    model.touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(str(model)) == model
    assert resolve("~/model.gguf") == model


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("dmeo", "did you mean demo?"),
        ("olmoe-1b-7b.ggfu", "did you mean olmoe-1b-7b.gguf?"),
        ("something-else", "known are demo"),
        ("no/such/folder/model.gguf", "known are demo"),
        ("~no-such-user/model.gguf", "known are demo"),
    ],
)
def test_resolve_suggests(
    argument: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "olmoe-1b-7b.gguf").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(argument)
    assert repr(argument) in str(caught.value)
    assert str(caught.value).endswith(hint)


def test_resolve_looks_into_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"is a directory; pass a \.gguf file"):
        resolve(str(tmp_path))
    (tmp_path / "b.gguf").touch()
    (tmp_path / "a.gguf").touch()
    with pytest.raises(ModelNotFoundError, match=r"pass one of the files in it: a\.gguf, b\.gguf"):
        resolve(str(tmp_path))


def test_resolve_builds_the_demo_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def build(directory: Path, *, progress: demo.Progress) -> Path:
        progress("building", 1, 2)
        path = directory / demo.demo_path().name
        directory.mkdir()
        path.touch()
        return path

    monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "build_demo", build)
    for _ in range(2):  # the second time it is there
        path = resolve("demo", progress=lambda step, done, total: steps.append(step))
        assert path == demo.demo_path()
        assert path.is_relative_to(tmp_path)
    assert steps == ["building"]
