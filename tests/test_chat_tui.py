"""``moestream chat`` on a pseudo-terminal, keys and all."""

import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from alphabet_model import ALPHABET
from command_line import COMMAND

BACKEND = "cpu" if find_spec("moestream._native") else "reference"
CTRL_C, CTRL_D = "\x03", "\x04"
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """A chat, what it has written since it was last looked at, and the keys of a user."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        self.parent, child = pty.openpty()
        termios.tcsetwinsize(child, (24, 80))
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        self.process = subprocess.Popen(
            [*COMMAND, "chat", *arguments, "--backend", BACKEND],
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
            preexec_fn=_take_terminal,
            env=clean | {"TERM": "xterm-256color", "PYTHONUTF8": "1"} | environment,
        )
        os.close(child)
        self.seen = ""

    def press(self, keys: str) -> None:
        os.write(self.parent, keys.encode())

    def wait_for(self, text: str) -> str:
        """Read until this text has come, and return all up to it, without codes."""
        deadline = time.monotonic() + 20
        while text not in _CODES.sub("", self.seen):
            assert time.monotonic() < deadline, self.seen
            if select.select([self.parent], [], [], 1)[0]:
                new = os.read(self.parent, 1 << 16).decode(errors="replace")
                self.seen += new
                if "\x1b[6n" in new:  # where is the cursor?
                    self.press("\x1b[5;1R")
        before, _, _ = _CODES.sub("", self.seen).partition(text)
        self.raw, self.seen = self.seen, ""
        return before

    def leave(self) -> int:
        """Read to the end, as a terminal does."""
        try:
            while os.read(self.parent, 1 << 16):
                pass
        except OSError:  # how Linux says that the other end is closed
            pass
        return self.process.wait(timeout=60)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal to it


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    template = tmp_path / "endless.jinja"
    template.write_text("{{ messages[-1].content }}0", encoding="utf-8")
    return template


def test_a_chat_from_the_first_word_to_the_last(alphabet: Path, tmp_path: Path) -> None:
    terminal = Terminal(alphabet, XDG_STATE_HOME=str(tmp_path), HOME=str(tmp_path))
    terminal.wait_for("/help lists commands")
    terminal.press("hello\r")
    terminal.wait_for("> hello")
    terminal.wait_for(ALPHABET)
    terminal.wait_for("alphabet.gguf │ ")  # the line below the prompt
    terminal.press(f"/save {tmp_path}/talk.json\r")
    terminal.wait_for("saved 1 turn to ")
    terminal.press("/hlep\r")
    terminal.wait_for("did you mean /help?")
    terminal.press(CTRL_D)
    assert terminal.leave() == 0
    assert (tmp_path / "talk.json").exists()
    history = list(tmp_path.rglob("chat_history"))
    assert len(history) == 1
    assert "+hello" in history[0].read_text(encoding="utf-8")


def test_ctrl_c_stops_the_answer_and_keeps_the_session(
    alphabet: Path, endless: Path, tmp_path: Path
) -> None:
    terminal = Terminal(
        alphabet,
        *("--chat-template", endless, "-c", "100000"),
        XDG_STATE_HOME=str(tmp_path),
        HOME=str(tmp_path),
    )
    terminal.wait_for("/help lists commands")
    terminal.press("hello\r")
    terminal.wait_for("1234567890")
    terminal.press(CTRL_C)
    terminal.wait_for("stopped; what there is of the answer is kept")
    assert "\x1b[?25h" in terminal.raw  # the cursor is back
    terminal.press("/undo\r")
    terminal.wait_for("took back: hello")
    terminal.press("/quit\r")
    assert terminal.leave() == 0


def test_without_colour_or_a_home_it_still_works(alphabet: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "state")
    terminal = Terminal(alphabet, NO_COLOR="1", XDG_STATE_HOME=nowhere, HOME=nowhere)
    terminal.wait_for("what you enter is not kept for next time")
    terminal.press("hello\r")
    terminal.wait_for(ALPHABET)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", terminal.raw)
    terminal.press(CTRL_C)
    terminal.wait_for("Ctrl-C once more")
    terminal.press(CTRL_C)
    assert terminal.leave() == 0


@pytest.mark.parametrize("how", [{"TERM": "dumb"}, {}])
def test_plain_lines_where_a_terminal_can_do_no_more(how: dict[str, str], alphabet: Path) -> None:
    terminal = Terminal(alphabet, *([] if how else ["--no-tui"]), **how)
    terminal.wait_for("> ")
    terminal.press("hello\n")
    terminal.wait_for(f"{ALPHABET}\n")
    terminal.press(CTRL_D)
    assert terminal.leave() == 0
