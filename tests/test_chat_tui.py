"""``moestream chat`` on a pseudo-terminal, keys and all."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from bisect import bisect_left
from importlib.util import find_spec
from pathlib import Path

import pytest
from alphabet_model import ALPHABET
from command_line import COMMAND

from moestream.profiles import read_profile
from moestream.traces.format import read_trace

BACKEND = "cpu" if find_spec("moestream._native") else "reference"
CTRL_C, CTRL_D = "\x03", "\x04"
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """A chat, what it has written since it was last looked at, and the keys of a user."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        self.parent, child = pty.openpty()
        termios.tcsetwinsize(child, (24, 80))
        self.modes = termios.tcgetattr(self.parent)
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
                try:
                    new = os.read(self.parent, 1 << 16).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"it has ended: {self.seen}") from None
                self.seen += new
                if "\x1b[6n" in new:  # where is the cursor?
                    self.press("\x1b[5;1R")
        ends = range(len(self.seen) + 1)
        end = bisect_left(ends, True, key=lambda end: text in _CODES.sub("", self.seen[:end]))
        self.raw, self.seen = self.seen[:end], self.seen[end:]
        return _CODES.sub("", self.raw).removesuffix(text)

    def rest(self) -> str:
        """What comes until the chat has ended."""
        found, deadline = self.seen, time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                if select.select([self.parent], [], [], 0.2)[0]:
                    found += os.read(self.parent, 1 << 16).decode(errors="replace")
                elif self.process.poll() is not None:
                    break
            except OSError:
                break
        return found

    def leave(self, keys: str) -> int:
        """Press keys until the chat ends, as a person would: one pressed too early is lost."""
        deadline = time.monotonic() + 60
        self.press(keys)
        while time.monotonic() < deadline:
            try:
                if not select.select([self.parent], [], [], 1)[0]:
                    self.press(keys)
                elif not os.read(self.parent, 1 << 16):
                    break
            except OSError:  # how Linux says that the other end is closed
                break
        return self.process.wait(timeout=10)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal to it


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    template = tmp_path / "endless.jinja"
    template.write_text("{{ messages[-1].content }}0", encoding="utf-8")
    return template


def test_a_chat_from_the_first_word_to_the_last(alphabet: Path, tmp_path: Path) -> None:
    terminal = Terminal(alphabet, MOESTREAM_STATE=str(tmp_path))
    terminal.wait_for("/help lists commands")
    terminal.press("hello\r")
    terminal.wait_for("> hello")
    terminal.wait_for(ALPHABET)
    terminal.wait_for("alphabet.gguf │ ")  # the line below the prompt
    terminal.press(f"/save {tmp_path}/talk.json\r")
    terminal.wait_for("saved 1 turn to ")
    terminal.press("/hlep\r")
    terminal.wait_for("did you mean /help?")
    assert terminal.leave(CTRL_D) == 0
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
        MOESTREAM_STATE=str(tmp_path),
    )
    terminal.wait_for("/help lists commands")
    terminal.press("hello\r")
    terminal.wait_for("1234567890")
    terminal.press(CTRL_C)
    terminal.wait_for("stopped; what there is of the answer is kept")
    assert "\x1b[?25h" in terminal.raw  # the cursor is back
    terminal.press("/undo\r")
    terminal.wait_for("took back: hello")
    assert terminal.leave("/quit\r") == 0


def test_without_colour_or_a_home_it_still_works(alphabet: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "state")
    terminal = Terminal(alphabet, NO_COLOR="1", MOESTREAM_STATE=nowhere)
    terminal.wait_for("what you enter is not kept for next time")
    terminal.wait_for("/help lists commands")
    terminal.wait_for(">")  # before it, keys are lost
    terminal.press("hello\r")
    terminal.wait_for(ALPHABET)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", terminal.raw)
    terminal.wait_for(">")
    terminal.press(CTRL_C)
    terminal.wait_for("Ctrl-C once more")
    assert terminal.leave(CTRL_C) == 0


@pytest.mark.parametrize("how", [{"TERM": "dumb"}, {}])
def test_plain_lines_where_a_terminal_can_do_no_more(how: dict[str, str], alphabet: Path) -> None:
    terminal = Terminal(alphabet, *([] if how else ["--no-tui"]), **how)
    terminal.wait_for(">")  # before it, keys are lost
    terminal.press("hello\n")
    terminal.wait_for(f"{ALPHABET}\n")
    assert terminal.leave(CTRL_D) == 0


# --- signals, and what is saved ---


def kept(folder: Path) -> list[str]:
    """What was said in the one conversation that is kept there."""
    (path,) = (folder / "chats").glob("*.json")
    assert path.parent.stat().st_mode & 0o077 == 0
    return [m["content"] for m in json.loads(path.read_text(encoding="utf-8"))["messages"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("answering", [True, False])
def test_signals_end_a_chat_with_all_saved_and_the_terminal_as_it_was(
    number: int, answering: bool, alphabet: Path, endless: Path, tmp_path: Path
) -> None:
    trace, profile = tmp_path / "t.csv.gz", tmp_path / "p.json"
    template = ["--chat-template", endless, "-c", "1000000"] if answering else []
    recorded = ["--trace", trace, "--save-profile", profile]
    terminal = Terminal(alphabet, *template, *recorded, MOESTREAM_STATE=str(tmp_path))
    terminal.wait_for("/help lists commands")
    terminal.press("hello\r")
    terminal.wait_for("1234567890" if answering else ALPHABET)
    if not answering:
        terminal.wait_for("alphabet.gguf │ ")
        terminal.press("half a line")
        terminal.wait_for("half a line")
    seen = terminal.raw
    terminal.process.send_signal(number)
    terminal.process.send_signal(number)  # as where a terminal is closed
    seen += terminal.rest()
    assert terminal.process.wait(timeout=20) == 128 + number
    assert "Traceback" not in seen
    assert termios.tcgetattr(terminal.parent) == terminal.modes
    for on, off in (("?2004l", "?2004h"), ("?25h", "?25l")):  # paste mode, the cursor
        assert seen.rfind(on) >= seen.rfind(off)
    question, answer = kept(tmp_path)
    assert question == "hello"
    assert answer.startswith("1234567890" if answering else ALPHABET)
    assert set(read_trace(trace).rows["turn"].tolist()) == {0}
    assert read_profile(profile, "p").tokens > 10


def test_ctrl_c_never_ends_the_chat_however_often_it_is_pressed(
    alphabet: Path, endless: Path, tmp_path: Path
) -> None:
    terminal = Terminal(
        *(alphabet, "--chat-template", endless, "-c", "1000000"), MOESTREAM_STATE=str(tmp_path)
    )
    terminal.wait_for("/help lists commands")
    terminal.press("hello\r")
    terminal.wait_for("1234567890")
    for _ in range(12):
        terminal.press(CTRL_C)
        time.sleep(0.05)
    terminal.wait_for("stopped; what there is of the answer is kept")
    terminal.wait_for("alphabet.gguf │ ")
    terminal.press("/undo\r")
    terminal.wait_for("took back: hello")
    assert terminal.leave("/quit\r") == 0


def test_a_chat_can_be_taken_up_again(alphabet: Path, tmp_path: Path) -> None:
    def say(text: str, *arguments: str | Path) -> str:
        terminal = Terminal(*arguments, MOESTREAM_STATE=str(tmp_path))
        told = terminal.wait_for("/help lists commands")
        told += terminal.wait_for(">")
        terminal.press(f"{text}\r")
        terminal.wait_for(ALPHABET)
        terminal.press("/help\r")
        terminal.wait_for("after each turn")
        terminal.process.kill()  # it was saved before
        terminal.process.wait()
        return told

    say("one", alphabet)
    assert "loaded 1 turn from" in say("two", "--continue")
    assert kept(tmp_path) == ["one", ALPHABET, "two", ALPHABET]
    (path,) = (tmp_path / "chats").glob("*.json")
    mine = path.rename(tmp_path / "mine.json")
    before = mine.read_text(encoding="utf-8")
    assert "loaded 2 turns from" in say("three", alphabet, "--load", mine)
    assert len(kept(tmp_path)) == 6
    assert mine.read_text(encoding="utf-8") == before  # /save is for that
