from pathlib import Path

import pytest

from moestream import demo
from moestream.catalog import (
    ModelSpec,
    add_entry,
    catalog,
    find_spec,
    locate,
    parse_catalog,
    remove_entry,
    resolve,
    user_catalog,
)
from moestream.catalog.entries import shipped_catalog, user_file
from moestream.errors import CatalogError, ModelNotFoundError
from moestream.forecast.estimate import Measured, estimate_of_spec
from moestream.hub import HubReference, parse_reference, repository_folder
from moestream.models import ARCHITECTURES
from moestream.streaming.memory import Memory


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESTREAM_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path / "cache"))


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
    assert parse_catalog(toml(sha256=f'"{digest}"', num_experts="4"), "x.toml") == {
        "tiny": ModelSpec(
            "tiny",
            "recipe:tiny",
            "a model",
            "MIT",
            architecture="llama",
            size_bytes=1000,
            sha256=digest,
            num_experts=4,
        )
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[tiny", "x.toml is not TOML"),
        ("tiny = 3", "expected a table, [tiny], not 3"),
        (toml(name='"Big One"'), "model 'Big One': a name is of lower-case letters"),
        (toml(colour='"red"'), "unknown key 'colour'; the keys are source, description"),
        (toml(licence=None, source=None), "missing source"),
        (toml(size_bytes='"1 GB"'), "size_bytes = '1 GB' is not a int"),
        (toml(size_bytes="true"), "size_bytes = True is not a int"),
        (toml(size_bytes="0"), "size_bytes = 0 is not positive"),
        (toml(num_experts="-1"), "num_experts = -1 is not positive"),
        (
            toml(source='"ftp:tiny"'),
            "source = 'ftp:tiny' is not KIND:WHAT with a KIND of recipe, hf",
        ),
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
        ("GPT-OSS", "did you mean gpt-oss-20b or gpt-oss-120b?"),
        ("olmoe-1b-7b.ggfu", "did you mean olmoe-1b-7b.gguf or olmoe-1b-7b?"),
        ("something-else", "moestream models list shows those that have names"),
        ("no/such/folder/model.gguf", "moestream models list shows those that have names"),
        ("~no-such-user/model.gguf", "moestream models list shows those that have names"),
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
        directory.mkdir(parents=True)
        path.touch()
        return path

    monkeypatch.setattr(demo, "build_demo", build)
    for _ in range(2):  # the second time it is there
        path = resolve("demo", progress=lambda step, done, total: steps.append(step))
        assert path == demo.demo_path()
        assert path.is_relative_to(tmp_path)
    assert steps == ["building"]


UNCOUNTED = {
    "gpt-oss-20b": 201_088 * 2_880,
    "gpt-oss-120b": 201_088 * 2_880,
    "granite-3.1-3b-a800m": 49_155 * 1_536,
}
"""Parameters that the publisher does not count as active: the embedding, of which a row is read."""


def test_shipped_models_are_real_and_their_figures_fit_together() -> None:
    shipped = shipped_catalog()
    from_hub = {name: spec for name, spec in shipped.items() if spec.kind == "hf"}
    assert len(from_hub) >= 12
    for name, spec in shipped.items():
        assert spec.description, name
        assert spec.licence, name
        assert spec.architecture, name
    for name, spec in from_hub.items():
        assert parse_reference(spec.source).names_file, name
        assert spec.parameters is not None, name
        assert spec.active_parameters is not None, name
        if spec.size_bytes is not None:
            assert 2.9 < 8 * spec.size_bytes / spec.parameters < 7, name
        # Some publishers round, or give no size to the byte: then models.toml leaves figures out.
        if spec.architecture in ARCHITECTURES and spec.size_bytes and spec.expert_bytes:
            share = spec.expert_bytes / (spec.loadable_bytes or 1)
            assert 0.8 < share < 1, name
            # What a token uses is the experts chosen and all the rest.
            chosen = (spec.num_experts_per_tok or 0) / (spec.num_experts or 1)
            active = spec.parameters * (1 - share + share * chosen)
            active -= UNCOUNTED.get(name, 0)
            # Else a rounded figure: "24B", "A3B".
            if spec.parameters % 1_000_000_000 and spec.active_parameters % 1_000_000_000:
                assert active == pytest.approx(spec.active_parameters, rel=0.03), name


def test_figures_of_the_demo_are_those_of_its_file() -> None:
    spec = catalog()["demo"]
    assert spec.expert_bytes == pytest.approx(1_368_023_040, rel=0.03)
    assert spec.expert_bytes_per_token == pytest.approx(85_501_440, rel=0.03)
    assert spec.size_bytes == demo.BUILT_BYTES


def test_a_table_without_a_shape_says_nothing_of_experts() -> None:
    spec = parse_catalog(toml(), "x.toml")["tiny"]
    assert (spec.expert_bytes, spec.expert_bytes_per_token) == (None, None)


FIGURES = {
    "size_bytes": "20_000",
    "parameters": "10_000",
    "num_moe_layers": "2",
    "num_experts": "8",
    "num_experts_per_tok": "2",
    "hidden_size": "10",
    "moe_intermediate_size": "5",
}


def test_experts_count_by_their_own_parameters_where_these_are_told() -> None:
    three = parse_catalog(toml(**FIGURES), "x.toml")["tiny"]
    two = parse_catalog(toml(**FIGURES, expert_parameters="100"), "x.toml")["tiny"]
    assert (three.expert_bytes, three.expert_bytes_per_token) == (4_800, 1_200)
    assert (two.expert_bytes, two.expert_bytes_per_token) == (3_200, 800)


def test_tables_that_stay_in_the_file_need_no_memory() -> None:
    without = parse_catalog(toml(**FIGURES), "x.toml")["tiny"]
    table = parse_catalog(toml(**FIGURES, table_parameters="2_500"), "x.toml")["tiny"]
    assert (without.loadable_bytes, table.loadable_bytes) == (20_000, 15_000)
    assert table.expert_bytes == without.expert_bytes
    memory = Memory(1 << 30, 1 << 30, "a test")
    fits = [estimate_of_spec(spec, memory, Measured()).fit for spec in (without, table)]
    assert (fits[0].needed_bytes or 0) - (fits[1].needed_bytes or 0) == 5_000


def test_the_users_file_adds_to_the_catalogue_and_goes_before_it() -> None:
    user_file().parent.mkdir()
    user_file().write_text(toml() + "\n" + toml("demo", source='"recipe:other"'))
    assert catalog()["tiny"].source == "recipe:tiny"
    assert catalog()["demo"].source == "recipe:other"
    assert "olmoe-1b-7b" in catalog()
    with pytest.raises(CatalogError, match="no recipe is called 'other'; there are: demo"):
        resolve("demo")


def test_a_broken_user_file_is_named() -> None:
    user_file().parent.mkdir()
    user_file().write_text("[tiny")
    with pytest.raises(CatalogError, match=r"config/models\.toml is not TOML"):
        catalog()


def test_entries_come_and_go_and_leave_the_rest_as_it_was() -> None:
    user_file().parent.mkdir()
    before = f"# mine\n{toml()}\n# the end\n"
    user_file().write_text(before)
    spec = add_entry("a.b", {"source": "hf:org/model:Q8_0", "description": 'say "è\n"'})
    assert user_catalog()["a.b"] == spec
    assert spec.description == 'say "è\n"'
    assert user_file().read_text().startswith(before)
    add_entry("last", {"source": "file:/x.gguf"})
    with pytest.raises(CatalogError, match=r"has a model 'last' already"):
        add_entry("last", {"source": "file:/y.gguf"})
    remove_entry("a.b")
    assert list(user_catalog()) == ["tiny", "last"]
    assert user_file().read_text().startswith(before)
    remove_entry("last")
    assert user_file().read_text().strip() == before.strip()
    with pytest.raises(CatalogError, match="could not take 'last' out"):
        remove_entry("last")


@pytest.mark.parametrize("name", ["Big", "", "-x", "a/b", "hf:x"])
def test_a_name_that_cannot_be_leaves_the_file_alone(name: str) -> None:
    with pytest.raises(CatalogError, match="cannot be a model's name"):
        add_entry(name, {"source": "file:/x.gguf"})
    assert not user_file().exists()


def test_a_model_of_the_hub_is_found_once_it_is_here() -> None:
    with pytest.raises(
        ModelNotFoundError,
        match=r"is not here yet; fetch it \(4\.2 GB\) with: moestream models pull olmoe-1b-7b",
    ):
        resolve("olmoe-1b-7b")
    folder = repository_folder("allenai/OLMoE-1B-7B-0924-Instruct-GGUF")
    folder.mkdir(parents=True)
    file = folder / "olmoe-1b-7b-0924-instruct-q4_k_m.gguf"
    file.touch()
    assert resolve("olmoe-1b-7b") == file
    assert resolve("hf:allenai/OLMoE-1B-7B-0924-Instruct-GGUF") == file
    assert resolve("hf:allenai/OLMoE-1B-7B-0924-Instruct-GGUF:q4_k_m") == file
    with pytest.raises(ModelNotFoundError, match="not here yet"):
        resolve("hf:allenai/OLMoE-1B-7B-0924-Instruct-GGUF:Q8_0")


def test_a_split_model_is_here_when_all_of_it_is() -> None:
    folder = repository_folder("org/model")
    folder.mkdir(parents=True)
    first = folder / "m-Q4_K_M-00001-of-00002.gguf"
    first.touch()
    spec = find_spec("hf:org/model")
    assert spec is not None
    assert locate(spec) is None
    (folder / "m-Q4_K_M-00002-of-00002.gguf").touch()
    assert locate(spec) == first


def test_a_file_that_the_user_named(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    add_entry("mine", {"source": f"file:{file}"})
    with pytest.raises(ModelNotFoundError, match=r"mine is .*model\.gguf, and no such file exists"):
        resolve("mine")
    file.touch()
    assert resolve("mine") == file


def test_a_reference_has_one_text() -> None:
    for text in ("hf:org/model", "hf:org/model:Q4_K_M", "hf:org/model:a/b.gguf"):
        assert str(parse_reference(text)) == text
    assert parse_reference("org/model:Q8_0") == HubReference("org/model", "Q8_0")
