"""Files in a message, an answer on the clipboard, a message in an editor."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from alphabet_model import ALPHABET
from command_line import run

from moestream.chat.attachments import begun_name, with_files
from moestream.cli.commands.chat.slash import complete
from moestream.errors import ConversationError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("line one\nline two\n")
    (tmp_path / "my file.md").write_text("```\ncode\n```")
    return tmp_path


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ("Sum up @notes.txt", ["notes.txt"]),
        ("(What is in @notes.txt?)", ["notes.txt"]),
        ("See @notes.txt.", ["notes.txt"]),
        ('@"my file.md" and @notes.txt, @notes.txt', ["my file.md", "notes.txt"]),
        ("write to me@notes.txt or @someone @ all @.", []),
        ("@" + "x" * 5000, []),
        ("@~nobody-of-that-name/x", []),
    ],
)
def test_names_of_files_in_a_message(message: str, names: list[str]) -> None:
    text, found = with_files(message)
    assert [each.path.name for each in found] == names
    assert text.startswith(message)
    assert (text == message) == (not names)


def test_a_file_is_shown_by_name_between_fences() -> None:
    assert with_files("Sum up @notes.txt")[0] == (
        "Sum up @notes.txt\n\nnotes.txt:\n```\nline one\nline two\n```"
    )
    text, _ = with_files('@"my file.md"')
    assert text.endswith("my file.md:\n````\n```\ncode\n```\n````")


def test_what_is_no_text_or_too_large_is_refused(folder: Path) -> None:
    (folder / "data").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConversationError, match="data is no text"):
        with_files("@data")
    with (folder / "large").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(ConversationError, match="too large"):
        with_files("@large")


@pytest.mark.parametrize(
    ("before", "begun"),
    [("a @no", "no"), ("@", ""), ('see @"my f', "my f"), ("me@no", None), ("hello", None)],
)
def test_names_are_completed(before: str, begun: str | None) -> None:
    assert begun_name(before) == begun
    candidates = complete(SimpleNamespace(), before)  # type: ignore[arg-type]
    if begun is None:
        assert candidates is None
    else:
        assert candidates is not None
        assert (candidates.length, candidates.files) == (len(begun), True)


def test_no_file_is_read_for_what_is_piped_in(alphabet: Path) -> None:
    done = run("chat", alphabet, "--temp", "0", stdin=b"@notes.txt\n/stats\n")
    assert done.stdout == f"{ALPHABET}\n"
    assert "with notes.txt" not in done.stderr


def test_what_is_typed_brings_files(folder: Path) -> None:
    from moestream.cli.commands.chat.program import Program

    notes: list[str] = []
    screen = SimpleNamespace(stays=True, note=notes.append)
    program: Any = SimpleNamespace(screen=screen)
    assert "line two" in Program._with_files(program, "Sum up @notes.txt")
    assert notes == ["with notes.txt, 17 characters"]


def test_edit_changes_the_last_message(alphabet: Path, folder: Path) -> None:
    editor = folder / "editor"
    editor.write_text('#!/bin/sh\ncp "$1" seen\nprintf "hello again\\n" > "$1"\n')
    editor.chmod(0o755)
    # An editor's file is read again where its time has changed, which has whole seconds in some.
    saved = folder / "talk.json"
    lines = f"/edit\nhello\n/edit\n/save {saved}\n"
    done = run("chat", alphabet, stdin=lines.encode(), env={"EDITOR": str(editor), "VISUAL": ""})
    assert done.stdout == f"{ALPHABET}\n" * 3
    assert (folder / "seen").read_text() == "hello\n"
    assert saved.read_text().count("hello again") == 2
    none = run("chat", alphabet, stdin=b"/edit\n", env={"EDITOR": "true", "VISUAL": ""})
    assert "nothing was changed" in none.stderr
    broken = run("chat", alphabet, stdin=b"/edit\n", env={"EDITOR": "false", "VISUAL": ""})
    assert broken.returncode == 1
    assert "$EDITOR" in broken.stderr


def test_copy_takes_the_systems_program_or_says_that_there_is_none(
    alphabet: Path, folder: Path
) -> None:
    program = folder / "xclip"
    program.write_text(f'#!/bin/sh\ncat > "{folder}/copied"\n')
    program.chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "DISPLAY": ":9", "WAYLAND_DISPLAY": ""}
    done = run("chat", alphabet, stdin=b"hello\n/copy\n", env=env)
    assert f"copied the last answer, {len(ALPHABET)} characters" in done.stderr
    assert (folder / "copied").read_text() == ALPHABET
    bare = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "WSL_DISTRO_NAME": ""}
    done = run("chat", alphabet, stdin=b"hello\n/copy\n", env=bare)
    assert "no clipboard here" in done.stderr
    assert "nothing has been said yet" in run("chat", alphabet, stdin=b"/copy\n").stderr
