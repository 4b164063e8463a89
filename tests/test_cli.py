"""The command line as a whole: help, usage errors, and errors that every command ends with."""

import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from inspect import signature
from pathlib import Path

import click
import pytest
from alphabet_model import write_alphabet_model
from command_line import COMMAND, run

import moestream
from moestream import Engine, backends, choices
from moestream.chat.settings import Settings
from moestream.cli import cli
from moestream.cli.commands.chat import chat
from moestream.cli.commands.generate import generate
from moestream.declare import declared
from moestream.engine.loading import EngineOptions
from moestream.engine.options import SamplingParams

HEAVY = {
    "numpy",
    "gguf",
    "tokenizers",
    "jinja2",
    "rich",
    "psutil",
    "huggingface_hub",
    "logging",
    "prompt_toolkit",
}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["generate", "--help"],
        ["chat", "--help"],
        ["inspect", "-h"],
        ["models", "pull", "-h"],
        ["bench", "-h"],
        ["plan", "-h"],
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "moestream", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))
    assert "click" in imported
    assert not imported & HEAVY


def test_help_shows_commands_sections_and_examples() -> None:
    group, command = run("--help").stdout, run("generate", "--help").stdout
    assert re.search(r"^Run a model:\n  chat +\w.*\n  generate +\w", group, re.MULTILINE)
    assert 'moestream generate demo -p "What is the capital of Italy?"' in group
    headings = re.findall(r"^(\w+):$", command, re.MULTILINE)
    assert headings == [
        *("Prompt", "Output", "Memory", "Engine", "Sampling", "Other", "Examples"),
    ]
    chat_headings = re.findall(r"^(\w+):$", run("chat", "--help").stdout, re.MULTILINE)
    assert chat_headings == ["Prompt", "Chat", *headings[1:]]
    assert all(len(line) <= 100 for line in command.splitlines())


def test_every_command_can_be_quiet_and_logged() -> None:
    def of(command: click.Command) -> Iterator[click.Command]:
        if not isinstance(command, click.Group):
            yield command
            return
        for below in command.commands.values():
            yield from of(below)

    commands = list(of(cli))
    assert len(commands) > 20
    for command in commands:
        flags = [flag for param in command.params for flag in param.opts]
        assert {"-q", "--quiet", "--log-file"} <= set(flags), command.name
        assert len(flags) == len(set(flags)), command.name


def test_help_is_short_and_lists_the_rest_when_asked() -> None:
    for command in ("generate", "chat"):
        lines = run(command, "--help", env={"COLUMNS": "80"}).stdout.splitlines()
        assert sum(line.startswith("  -") for line in lines) <= 30
        assert len(lines) <= 80
    for flag in ("--repeat-last-n", "--cache-type-k", "--log-file"):
        assert not any(flag in line for line in lines)
        assert flag in run("generate", "--help-all").stdout


def test_every_declared_option_is_one_of_generate_or_chat() -> None:
    for of, command in ((SamplingParams, generate), (EngineOptions, generate), (Settings, chat)):
        params = {param.name: param for param in command.params}
        for name, each in declared(of).items():
            if each.option.kind is not bool:  # a switch is off, unless it is given
                assert params[name].default == each.default
            assert set(each.flags) == set(params[name].opts)


def test_the_engine_opens_with_the_declared_defaults() -> None:
    opening = signature(Engine.open).parameters
    for name, each in declared(EngineOptions).items():
        assert opening[name].default == each.default


def test_ctrl_c_while_modules_are_imported_is_no_traceback() -> None:
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'moestream.cli.group':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from moestream.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_version() -> None:
    first, *details = run("--version").stdout.splitlines()
    assert first == f"moestream, version {moestream.__version__}"
    found = dict(line.split(": ", 1) for line in details)
    assert list(found) == ["python", "system", "kernels", "libraries"]
    assert platform.python_version() in found["python"]
    assert "scalar" in found["kernels"]
    assert f"numpy {metadata.version('numpy')}" in found["libraries"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["genrate"], "no command is called 'genrate'; did you mean generate?"),
        (["xyzzy"], "no command is called 'xyzzy'; see moestream --help"),
        (["generate", "--raww"], "Did you mean '--raw'?"),
        (["generate", "--bogus"], "No such option '--bogus'.\n"),
        (["--hlep"], "Did you mean '--help'?"),
        (["inspect"], "Missing argument 'MODEL'"),
    ],
)
def test_what_is_mistyped_is_a_usage_error(arguments: list[str], complaint: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == ""


def broken_models(folder: Path, sound: Path) -> dict[str, Path]:
    contents = {
        "truncated": sound.read_bytes()[:1_000_000],
        "cut in the header": sound.read_bytes()[:1_000],
        "text": b"Once upon a time there was a file that was not a model.\n" * 100,
        "empty": b"",
    }
    paths = {name: folder / f"{name}.gguf" for name in [*contents, "missing", "directory"]}
    for name, data in contents.items():
        paths[name].write_bytes(data)
    paths["directory"].mkdir()
    return paths


@pytest.mark.parametrize("command", ["generate", "inspect"])
@pytest.mark.parametrize(
    "damage", ["truncated", "cut in the header", "text", "empty", "missing", "directory"]
)
def test_what_is_no_model_is_one_clear_line(
    command: str, damage: str, tmp_path: Path, alphabet: Path
) -> None:
    path = broken_models(tmp_path, alphabet)[damage]
    prompt = ["-p", "hello", "--backend", "reference"] if command == "generate" else []
    done = run(command, path, *prompt)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"error: .+\n", done.stderr)
    assert path.name in done.stderr


def test_an_unsupported_architecture_is_one_clear_line(tmp_path: Path) -> None:
    path = write_alphabet_model(tmp_path / "model.gguf", architecture="mamba")
    done = run("generate", path, "-p", "hello", "--backend", "reference")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*'mamba'.* llama, olmoe, qwen2moe, qwen3moe.*\n", done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    "command", [["inspect"], ["generate", "-p", "a", "-q", "--backend", "reference"]]
)
def test_a_full_disk_is_one_clear_line(command: list[str], alphabet: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(command[0], alphabet, *command[1:], stdout=full)
    assert done.returncode == 1
    assert done.stderr == "error: standard output: No space left on device\n"


@pytest.mark.parametrize("line", ["moestream inspect olm", "moestream models pull olm"])
def test_bash_completes_names_of_models(line: str, tmp_path: Path) -> None:
    assert completed_by_bash(line, tmp_path) == ["olmoe-1b-7b"]


def test_bash_is_left_to_complete_files_where_no_name_begins_so(tmp_path: Path) -> None:
    assert completed_by_bash("moestream inspect ./mine", tmp_path) == ["(files)"]


def completed_by_bash(line: str, folder: Path) -> list[str]:
    """What bash offers after Tab, by the script that we give it."""
    program = folder / "moestream"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    words = line.split()
    script = [
        run("completion", "bash").stdout,
        'compopt() { COMPREPLY+=("(files)"); }',  # the true one works inside a completion alone
        f"COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}",
        f"_moestream_completion {program}",
        """printf '%s\\n' "${COMPREPLY[@]}\"""",
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_of_the_shell(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert f"_MOESTREAM_COMPLETE={shell}_complete" in done.stdout
    checker = shutil.which(shell)
    if checker is not None:
        subprocess.run([checker, "-n"], input=done.stdout.encode(), check=True)


def test_completion_knows_other_shells_not() -> None:
    done = run("completion", "tcsh")
    assert done.returncode == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.stderr


def test_backends_are_those_of_the_library() -> None:
    assert set(choices.BACKENDS) == {"auto", *backends.BACKENDS}


def test_a_log_file_has_what_was_told_and_how_it_ended(tmp_path: Path, alphabet: Path) -> None:
    log = tmp_path / "run.log"
    done = run("inspect", tmp_path / "missing.gguf", "--log-file", log)
    assert done.returncode == 1
    lines = log.read_text().splitlines()
    assert re.fullmatch(rf"20.* INFO moestream {moestream.__version__}: inspect .*", lines[0])
    assert re.fullmatch(r"20.* ERROR no model is called '.*missing\.gguf'.*", lines[1])
    assert lines[2].endswith(" INFO ended with status 1")

    options = ["-p", "ab", "-n", "1", "--backend", "reference", "--raw"]
    done = run("generate", alphabet, *options, env={"MOESTREAM_LOG_FILE": str(log)})
    assert done.returncode == 0, done.stderr
    assert "alphabet: all of it in memory" in done.stderr
    told = log.read_text()
    assert " INFO alphabet: all of it in memory" in told
    assert told.endswith(" INFO ended with status 0\n")


def test_a_log_file_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    done = run("inspect", "demo", "--log-file", tmp_path)
    assert done.returncode == 2
    assert "is a directory" in done.stderr
