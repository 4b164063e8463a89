"""The table of the chat's commands, and what is completed of them."""

from types import SimpleNamespace
from typing import Any

import pytest

from moestream.chat.settings import Settings
from moestream.cli.commands.chat.slash import COMMANDS, ChatUsageError, complete, run_command


def program() -> Any:
    return SimpleNamespace(dialogue=SimpleNamespace(settings=Settings()), leaving=False)


def texts(before: str) -> list[str] | None:
    candidates = complete(program(), before)
    if candidates is None:
        return None
    start = before[: len(before) - candidates.length]
    return [start + text for text, _ in candidates.items]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", None),
        ("hello /s", None),
        ("/undo\nmore", None),
        ("/s", ["/system", "/set", "/stats", "/save"]),
        ("/xyzzy", []),
        ("/xyzzy a", None),
        ("/clear ", []),
        ("/set rep", ["/set repeat-penalty", "/set repeat-last-n"]),
        ("/set reasoning ", ["/set reasoning show", "/set reasoning dim", "/set reasoning hide"]),
        ("/set context-shift o", ["/set context-shift on", "/set context-shift off"]),
        ("/set temp ", []),
        ("/model dem", ["/model demo"]),
        ("/system n", ["/system none"]),
        ("/profile s", ["/profile save ", "/profile save italian"]),
        ("/profile save it", ["/profile save italian"]),
    ],
)
def test_what_is_completed(
    before: str, expected: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestream.profiles.names.profile_names", lambda: ["italian"])
    assert texts(before) == expected


def test_files_are_completed_where_a_command_takes_one() -> None:
    taking = {each.name for each in COMMANDS if each.files}
    assert taking == {"save", "load", "model"}
    for name in taking:
        candidates = complete(program(), f"/{name} some/fi")
        assert candidates is not None
        assert (candidates.files, candidates.length) == (True, len("some/fi"))


def test_names_are_found_in_any_case_and_by_their_other_names() -> None:
    for line in ("/quit", "/QUIT", "/exit", "/bye "):
        leaving = program()
        run_command(leaving, line)
        assert leaving.leaving
    with pytest.raises(ChatUsageError, match="did you mean /quit"):
        run_command(program(), "/quti")


def test_a_model_without_experts_has_nothing_to_profile() -> None:
    dense = SimpleNamespace(profile=None, model="dense")
    with pytest.raises(
        ChatUsageError, match="dense has no experts, so there is nothing to profile"
    ):
        run_command(dense, "/profile save x")  # type: ignore[arg-type]


def test_every_command_has_a_name_of_its_own_and_words() -> None:
    names = [name for each in COMMANDS for name in (each.name, *each.aliases)]
    assert len(names) == len(set(names))
    assert all(each.summary for each in COMMANDS)
