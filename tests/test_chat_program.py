"""The chat's model is changed for another, or stays where that fails."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from moestream.chat.conversation import Conversation, Turn
from moestream.chat.settings import Settings
from moestream.cli.commands.chat.kept import Keeper
from moestream.cli.commands.chat.program import Program
from moestream.cli.commands.chat.slash import run_command
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.errors import ModelFormatError
from moestream.terminal.interrupt import Terminated


class Opener:
    """Opens models; ``failing`` has what is raised instead, in turn, None for nothing."""

    def __init__(self) -> None:
        self.failing: list[BaseException | None] = []
        self.opened: list[Engine] = []

    def __call__(self, name: str) -> Engine:
        error = self.failing.pop(0) if self.failing else None
        if error is not None:
            raise error
        self.opened.append(Engine.open(Path(name), backend="reference", context_length=512))
        return self.opened[-1]


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def program(opener: Opener, alphabet: Path, tmp_path: Path) -> Iterator[Program]:
    copyfile(alphabet, tmp_path / "other.gguf")
    conversation = Conversation(turns=[Turn("hello", "abc")])
    settings = Settings(SamplingParams(temperature=0))
    keeper = Keeper(tmp_path / "kept.json")
    model = str(alphabet)
    with Program(opener, model, conversation, settings, run_command, keeper=keeper) as found:
        yield found


def answers(program: Program) -> bool:
    return any(program.dialogue.ask("again", lambda: False))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ModelFormatError("no"), RuntimeError()])
def test_the_old_model_is_opened_again_whatever_breaks_off_the_other(
    error: BaseException, program: Program, opener: Opener, tmp_path: Path
) -> None:
    old = program.model
    opener.failing = [error]
    with pytest.raises(type(error)):
        program.switch(str(tmp_path / "other.gguf"))
    assert (program.model, program.leaving, len(opener.opened)) == (old, False, 2)
    assert answers(program)


@pytest.mark.parametrize("again", [KeyboardInterrupt(), OSError("gone")])
def test_where_that_fails_too_the_program_is_left(
    again: BaseException, program: Program, opener: Opener, tmp_path: Path
) -> None:
    opener.failing = [KeyboardInterrupt(), again]
    with pytest.raises(type(again)):
        program.switch(str(tmp_path / "other.gguf"))
    assert program.leaving


def test_a_signal_that_ends_the_program_opens_nothing(
    program: Program, opener: Opener, tmp_path: Path
) -> None:
    opener.failing = [Terminated(15)]
    with pytest.raises(Terminated):
        program.switch(str(tmp_path / "other.gguf"))
    assert (program.leaving, len(opener.opened)) == (True, 1)


def test_a_close_that_is_broken_off_leaves_a_model_too(
    program: Program, opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, calls = Engine.close, list[int]()

    def breaks_once(engine: Any) -> None:
        close(engine)
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "close", breaks_once)
    with pytest.raises(KeyboardInterrupt):
        program.switch(str(tmp_path / "other.gguf"))
    assert not program.leaving
    assert answers(program)
