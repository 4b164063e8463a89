"""How soon Ctrl-C is answered: in loading, in a long prompt, in an answer; generate and chat.

Needs: the demo model. Each line is one run in a pseudo-terminal: when Ctrl-C
was pressed, and the time from there to the word "stopping" (or, where it was over at once, that it
was) and to the end of the process (for chat: to the prompt). Ends with 1 if a word took longer than
is promised, or a traceback was told. The last line is JSON.

    python scripts/oracle/interrupt.py [--model demo] [--most-s 0.3]
"""

import argparse
import fcntl
import json
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_AT_PROMPT = r"\x1b\[\?2004h"
"""How a line editor asks a terminal to mark what is pasted."""
_LONGEST_S = 60.0
_SENTENCE = "The quick brown fox jumps over the lazy dog near the old mill by the river. "
_ANSWER = "stopping|stopped|interrupted"
_BAR_ENDS = r"\x1b\[\?25h"
"""How a bar shows the cursor again."""


@dataclass(frozen=True)
class Moment:
    """When Ctrl-C is pressed: ``delay_s`` after the terminal has shown ``after``, in turn."""

    name: str
    after: tuple[str, ...]
    delay_s: float


@dataclass(frozen=True)
class Result:
    """What came of one."""

    command: str
    moment: str
    delay_s: float
    stopping_s: float | None
    """To the word; None where the end alone was to be seen."""
    end_s: float
    clean: bool
    """Whether no traceback was told."""

    @property
    def answered_s(self) -> float:
        """To the first sign of an answer."""
        return self.end_s if self.stopping_s is None else self.stopping_s


_LOADING = [Moment("loading", (), delay) for delay in (0.06, 0.1, 0.2, 0.3, 0.45, 0.6)]
_GENERATE = [
    *_LOADING,
    *(Moment("prefill", ("reading the prompt",), delay) for delay in (0.02, 0.5, 1.5, 3.0)),
    *(
        Moment("decode", ("reading the prompt", _BAR_ENDS, "[a-z]{2}"), delay)
        for delay in (0.0, 0.5, 1.0)
    ),
]
_CHAT = [
    *_LOADING,
    *(Moment("prefill", (r"reading \d+/[1-9]",), delay) for delay in (0.02, 0.5, 1.5, 3.0)),
    *(Moment("decode", ("answering",), delay) for delay in (0.0, 0.5, 1.0)),
]


class Terminal:
    """A program in a pseudo-terminal of its own, and what it has written."""

    def __init__(self, command: Sequence[str], state: Path) -> None:
        self.keys, child = pty.openpty()
        termios.tcsetwinsize(child, (24, 80))
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        self.process = subprocess.Popen(
            command,
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=clean | {"TERM": "xterm-256color", "MOESTREAM_STATE": str(state)},
        )
        os.close(child)
        self.seen = ""
        self._looked = 0

    def press(self, keys: str) -> None:
        """Press keys, however many."""
        data = keys.encode()
        while data:
            data = data[os.write(self.keys, data[:256]) :]
            self._read(0.002)

    def wait_for(self, pattern: str) -> bool:
        """Wait until it has come since what was last found; False if the program ended before."""
        deadline = time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline:
            if found := re.compile(pattern).search(self.seen, self._looked):
                self._looked = found.end()
                return True
            if not self._read(0.005):
                return False
        raise TimeoutError(f"waited for {pattern!r} and saw: {self.seen[-500:]!r}")

    def wait(self, seconds: float) -> None:
        """Let time pass, and read on."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self._read(min(left, 0.01)):
            pass

    def wait_for_end(self) -> None:
        """Wait until the program has ended."""
        deadline = time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline and self._read(0.005):
            pass
        self.process.wait(timeout=10)

    def close(self) -> None:
        """End the program, if it has not."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.keys)

    def _read(self, seconds: float) -> bool:
        if not select.select([self.keys], [], [], seconds)[0]:
            return True
        try:
            new = os.read(self.keys, 1 << 16).decode(errors="replace")
        except OSError:  # how Linux says that the other end is closed
            return False
        self.seen += new
        if "\x1b[6n" in new:  # where is the cursor?
            os.write(self.keys, b"\x1b[5;1R")
        return bool(new)


def interrupt(terminal: Terminal, command: str, moment: Moment, *, to_prompt: bool) -> Result:
    """Press Ctrl-C when the moment has come, and time what follows."""
    for pattern in moment.after:
        if not terminal.wait_for(pattern):
            sys.exit(f"{command} ended before {moment.name}: {terminal.seen[-500:]!r}")
    terminal.wait(moment.delay_s)
    began = time.monotonic()
    os.write(terminal.keys, b"\x03")
    stopping_s = None
    if terminal.wait_for(_ANSWER):
        stopping_s = round(time.monotonic() - began, 3)
    if to_prompt and moment.name != "loading":
        terminal.wait_for(_AT_PROMPT)
    else:
        terminal.wait_for_end()
    end_s = round(time.monotonic() - began, 3)
    clean = "Traceback" not in terminal.seen
    return Result(command, moment.name, moment.delay_s, stopping_s, end_s, clean)


def run(model: str, command: str, extra: Sequence[str], moment: Moment, folder: Path) -> Result:
    """One run of ``command`` with the long prompt."""
    words = [sys.executable, "-m", "moestream", command, model, *extra]
    told = " ".join([command, *extra])
    is_chat = command == "chat"
    if not is_chat:
        words += ["-f", str(folder / "prompt.txt"), "--temp", "0"]
    terminal = Terminal(words, folder)
    try:
        if is_chat and moment.name != "loading":
            terminal.wait_for(_AT_PROMPT)
            text = (folder / "prompt.txt").read_text()
            terminal.press(f"\x1b[200~{text}\x1b[201~")
            terminal.press("\r")
        return interrupt(terminal, told, moment, to_prompt=is_chat)
    finally:
        terminal.close()


def main() -> None:
    """Run all moments of both commands, with and without a budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--budget", default="500M", help="of the runs that stream")
    parser.add_argument("--most-s", type=float, default=0.3, help="what is promised")
    parser.add_argument("--sentences", type=int, default=235, help="of 17 tokens, in the prompt")
    asked = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "prompt.txt").write_text(_SENTENCE * asked.sentences + "What is this about?")
        for extra in ([], ["--budget", asked.budget]):
            for command, moments in (("generate", _GENERATE), ("chat", _CHAT)):
                for moment in moments:
                    result = run(asked.model, command, extra, moment, folder)
                    results.append(result)
                    _tell(result, asked.most_s)
    bad = [each for each in results if each.answered_s > asked.most_s or not each.clean]
    worst = max(each.answered_s for each in results)
    told = {"runs": [asdict(each) for each in results], "late": len(bad), "worst_s": worst}
    print(json.dumps(told))
    sys.exit(bool(bad))


def _tell(result: Result, most_s: float) -> None:
    stopping = "-" if result.stopping_s is None else f"{result.stopping_s:.3f}"
    late = "" if result.answered_s <= most_s else "  LATE"
    dirty = "" if result.clean else "  TRACEBACK"
    print(
        f"{result.command:24} {result.moment:8} +{result.delay_s:.2f} s  "
        f"stopping {stopping:>6}  end {result.end_s:.3f}{late}{dirty}",
        flush=True,
    )


if __name__ == "__main__":
    main()
