"""Where an option's value comes from: the command line, the environment, config.toml."""

import re
from pathlib import Path

import click
import pytest
from command_line import run

from moestream.cli import cli
from moestream.cli.commands.generate import generate
from moestream.cli.config_file import load_defaults
from moestream.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOESTREAM_CONFIG", str(tmp_path))
    return tmp_path


def seed_of(*options: str) -> object:
    """What --seed of generate would be, all sources considered."""
    with click.Context(cli, info_name="moestream") as root:
        root.default_map = load_defaults(cli)
        context = generate.make_context("generate", ["model.gguf", *options], parent=root)
        return context.params["seed"]


@pytest.mark.parametrize(
    ("config", "env", "options", "seed"),
    [
        ("", {}, [], None),
        ("seed = 1", {}, [], 1),
        ("[generate]\nseed = 2", {}, [], 2),
        ("seed = 1\n[generate]\nseed = 2", {}, [], 2),
        ("seed = 1", {"MOESTREAM_SEED": "3"}, [], 3),
        ("", {"MOESTREAM_SEED": "3", "MOESTREAM_GENERATE_SEED": "4"}, [], 4),
        ("seed = 1", {"MOESTREAM_SEED": "3"}, ["--seed", "5"], 5),
        ("seed = 1", {"MOESTREAM_SEED": ""}, [], 1),
    ],
)
def test_the_nearest_wins(
    config: str,
    env: dict[str, str],
    options: list[str],
    seed: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / "config.toml").write_text(config)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert seed_of(*options) == seed


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("seed = [", "config.toml is not TOML"),
        ("seed = " + "9" * 5000, "config.toml is not TOML: a number in it has thousands of digits"),
        ("sead = 1", "config.toml: no command has an option 'sead'; did you mean seed or stream?"),
        ("[generat]\nseed = 1", "no command is called 'generat'; did you mean generate?"),
        ("[generate]\ntensors = true", "generate has no option 'tensors'"),
        ("n = 1\npredict = 2", "n and predict are one option; keep one of them"),
        ("[models.pul]\nquiet = true", "models: no command is called 'pul'; did you mean pull?"),
    ],
)
def test_what_config_cannot_set(config: str, complaint: str, folder: Path) -> None:
    (folder / "config.toml").write_text(config)
    with pytest.raises(ConfigError) as caught:
        load_defaults(cli)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("config", ["n = 3", "n_predict = 3", "[generate]\nn-predict = 3"])
def test_any_name_of_an_option_will_do(config: str, folder: Path) -> None:
    (folder / "config.toml").write_text(config)
    assert load_defaults(cli)["generate"]["max_tokens"] == "3"


def test_a_name_of_several_options_is_each_commands_own(folder: Path) -> None:
    (folder / "config.toml").write_text("n = 3\n[bench]\nn = 4")
    defaults = load_defaults(cli)
    assert (defaults["chat"]["max_tokens"], defaults["bench"]["n_gen"]) == ("3", ["4"])


def test_a_folder_of_its_name_is_an_error(folder: Path) -> None:
    (folder / "config.toml").mkdir()
    with pytest.raises(ConfigError, match=r"config\.toml is no file"):
        load_defaults(cli)


def test_a_command_of_a_group_has_its_table(folder: Path) -> None:
    (folder / "config.toml").write_text("json = true\n[models.pull]\nquiet = true")
    defaults = load_defaults(cli)
    assert defaults["models"]["pull"] == {"as_json": True, "quiet": True}
    assert defaults["models"]["list"] == {"as_json": True}


@pytest.mark.parametrize("config", ["temp = 'hot'", "backend = 'abacus'", "ctx-size = -1"])
def test_a_wrong_value_says_that_config_has_it(config: str, folder: Path) -> None:
    (folder / "config.toml").write_text(config)
    with pytest.raises(click.BadParameter, match=r"\(from config\.toml\)"):
        seed_of()


def test_a_wrong_config_is_one_clear_line(folder: Path) -> None:
    (folder / "config.toml").write_text("seed = [")
    done = run("inspect", "demo")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*config\.toml is not TOML: .*\n", done.stderr)
    assert run("--help").returncode == 0


def test_a_wrong_variable_is_named() -> None:
    done = run("generate", "x.gguf", "-p", "a", env={"MOESTREAM_TOP_K": "many"})
    assert done.returncode == 2
    assert "(from MOESTREAM_TOP_K in the environment)" in " ".join(done.stderr.split())


def test_lists_of_simulate_are_not_the_options_of_a_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("no trace\n")
    done = run("simulate", trace, env={"MOESTREAM_BUDGET": "auto"})
    assert "MOESTREAM_BUDGET" not in done.stderr
    done = run("simulate", trace, env={"MOESTREAM_SIMULATE_BUDGET": "auto"})
    assert "(from MOESTREAM_SIMULATE_BUDGET in the environment)" in " ".join(done.stderr.split())


def test_the_model_may_come_from_the_environment(tmp_path: Path) -> None:
    done = run("generate", "-p", "x", env={"MOESTREAM_MODEL": str(tmp_path / "no.gguf")})
    assert done.returncode == 1
    assert "no.gguf" in done.stderr
