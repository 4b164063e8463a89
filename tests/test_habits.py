"""Words of other programs, and what they lead to."""

import json
from pathlib import Path

import click
import pytest
from alphabet_model import ALPHABET
from command_line import run

from moestream.cli.habits import meant


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["ls"], ["models", "list"]),
        (["list", "--here"], ["models", "list", "--here"]),
        (["pull", "hf:a/b"], ["models", "pull", "hf:a/b"]),
        (["rm", "x"], ["models", "rm", "x"]),
        (["show", "demo"], ["models", "info", "demo"]),
        (["version"], ["--version"]),
        (["help"], ["--help"]),
        (["help", "generate"], ["generate", "--help"]),
        (["help", "ls"], ["models", "list", "--help"]),
        (["generate", "ls"], ["generate", "ls"]),
        ([], []),
    ],
)
def test_words_that_lead_elsewhere(typed: list[str], read: list[str]) -> None:
    assert meant(typed, lambda rest: False) == read


@pytest.mark.parametrize("word", ["ps", "stop", "create", "push", "login"])
def test_words_that_there_is_nothing_for(word: str) -> None:
    with pytest.raises(click.UsageError, match=word):
        meant([word], lambda rest: False)


def test_they_are_commands_of_the_program() -> None:
    assert run("version").stdout == run("--version").stdout
    assert "Usage: moestream generate " in run("help", "generate").stdout
    assert run("ls", "--here", "--json").stdout.startswith("{")
    done = run("ps")
    assert (done.returncode, done.stdout) == (2, "")
    assert "/slots" in done.stderr


def test_a_prompt_after_the_model(alphabet: Path) -> None:
    done = run("generate", alphabet, "hello", "there", "-q")
    assert done.stdout == f"{ALPHABET}\n"
    plain = run("generate", alphabet, "-p", "hello there", "--json", "-n", "0").stdout
    words = run("generate", alphabet, "hello", "there", "--json", "-n", "0").stdout
    assert json.loads(plain)["prompt_tokens"] == json.loads(words)["prompt_tokens"]
    done = run("generate", alphabet, "hello", "-p", "there")
    assert (done.returncode, done.stdout) == (2, "")
    assert "given twice" in done.stderr


def test_a_prompt_without_a_model_is_told_apart(tmp_path: Path) -> None:
    done = run("generate", "why is the sky blue?", "-p", "x")
    assert done.returncode == 1
    assert "a prompt goes after the model, or after -p" in done.stderr


def test_run_is_generate_with_a_prompt(alphabet: Path) -> None:
    for arguments in (["hello"], ["-p", "hello"], ["--temp", "0", "hello"]):
        assert run("run", alphabet, "-q", *arguments).stdout == f"{ALPHABET}\n"
    assert run("run", alphabet, "-q", stdin=b"hello\nthere\n").stdout == f"{ALPHABET}\n"


def test_run_is_chat_without_one(alphabet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestream.cli.habits._is_piped", lambda: False)
    from moestream.cli import cli

    with click.Context(cli) as ctx:
        assert cli.meant is not None  # type: ignore[attr-defined]
        for rest in ([str(alphabet)], [], ["demo", "--temp", "0"], ["demo", "--continue"]):
            assert cli.meant(ctx, ["run", *rest])[0] == "chat"  # type: ignore[attr-defined]
        assert cli.meant(ctx, ["run", "demo", "hi"])[0] == "generate"  # type: ignore[attr-defined]


def test_a_system_prompt_from_a_file(alphabet: Path, tmp_path: Path) -> None:
    file = tmp_path / "system.txt"
    file.write_text("Be brief.\n")
    given = run("generate", alphabet, "-p", "hi", "-sys", "Be brief.", "--json", "-n", "0").stdout
    read = run("generate", alphabet, "-p", "hi", "-sysf", file, "--json", "-n", "0").stdout
    assert json.loads(given)["prompt_tokens"] == json.loads(read)["prompt_tokens"]
    done = run("chat", alphabet, "-sysf", file, stdin=b"/system\n")
    assert "system prompt: Be brief." in done.stderr
    done = run("chat", alphabet, "-sysf", file, "-sys", "x", stdin=b"")
    assert done.returncode == 2
    assert "exclude each other" in done.stderr
