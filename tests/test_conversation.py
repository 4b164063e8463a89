import json
import os
from pathlib import Path
from typing import Any

import pytest

from moestream.chat.conversation import Conversation, Turn
from moestream.errors import ConversationError

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello."}


def talk() -> Conversation:
    return Conversation("Be brief.", [Turn("Hi", "Hello."), Turn("2+2?", "4", "sum"), Turn("So?")])


def test_messages_are_what_a_template_takes() -> None:
    assert talk().messages() == [
        SYSTEM,
        USER,
        ASSISTANT,
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4", "reasoning_content": "sum"},
        {"role": "user", "content": "So?"},
    ]
    assert Conversation().messages() == []


def test_undo_takes_the_last_turn_and_drop_the_first() -> None:
    conversation = talk()
    assert conversation.undo() == Turn("So?")
    assert conversation.drop(1) == 1
    assert [turn.user for turn in conversation.turns] == ["2+2?"]
    assert conversation.drop(5) == 1
    assert conversation.undo() is None
    assert conversation.messages() == [SYSTEM]


def test_clear_keeps_the_system_prompt() -> None:
    conversation = talk()
    conversation.clear()
    assert conversation == Conversation("Be brief.")


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    conversation, path = talk(), tmp_path / "talk.json"
    conversation.undo()
    conversation.turns[0].answer = "perché\n\t\x1b ☃"
    conversation.save(path, model="demo")
    assert Conversation.load(path) == conversation
    value = json.loads(path.read_text(encoding="utf-8"))
    assert (value["model"], value["version"]) == ("demo", 1)
    assert list(tmp_path.iterdir()) == [path]


def test_lone_surrogates_are_saved_as_something(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    Conversation(None, [Turn("caf\udce9", "?")]).save(path, model="demo")
    assert Conversation.load(path).turns[0].user == "caf?"


def test_a_disk_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "talk.json"
    talk().save(path, model="demo")
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        Conversation().save(path, model="other")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_bare_list_of_messages_is_a_conversation(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    path.write_text(json.dumps([USER, ASSISTANT]), encoding="utf-8")
    assert Conversation.load(path) == Conversation(None, [Turn("Hi", "Hello.")])


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("text", "it is not JSON in line 1, column 1"),
        (b"\xff", "not UTF-8 text: byte 0 is 0xff"),
        ("9" * 5000, "has thousands of digits"),
        ("[" * 100_000, "nested too deeply"),
        (7, 'no list of "messages"'),
        ({"messages": {}}, 'no list of "messages"'),
        ({"version": 2, "messages": []}, "of version 2 of the format; expected 1"),
        ([ASSISTANT], 'message 1 is of role "assistant", expected "user"'),
        ([USER, USER], 'message 2 is of role "user", expected "assistant"'),
        ([SYSTEM, ASSISTANT], 'message 2 is of role "assistant", expected "user"'),
        ([USER, SYSTEM], 'message 2 is of role "system", expected "assistant"'),
        ([USER, "Hello."], "message 2 is not an object"),
        ([USER, {"role": "assistant", "content": None}], "message 2 has no role and content"),
        ([SYSTEM, USER], "ends with a user's message that has no answer"),
    ],
)
def test_what_is_no_conversation_is_refused(value: Any, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    if isinstance(value, bytes):
        path.write_bytes(value)
    else:
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    with pytest.raises(ConversationError, match=complaint):
        Conversation.load(path)
