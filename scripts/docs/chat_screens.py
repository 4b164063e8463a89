"""Drive `moestream chat demo` in a real terminal and keep its screens as text.

Needs tmux and the demo model. Three turns: a plain one; one that is resized and stopped in the
middle; a pasted block of forty lines. Then the conversation is saved, forgotten, loaded and gone on
with. Speeds are masked in the screens; where the stopped answer ends varies. The last line is JSON.

    python scripts/docs/chat_screens.py docs/screens
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import MOESTREAM

PASTED = "".join(f"line {number} of the pasted text\n" for number in range(1, 41))
MASKS = (
    (re.compile(r"[\d.]+ tok/s"), "NN tok/s"),
    (re.compile(r"fit in [\d.]+[KMGT]"), "fit in NG"),
    (re.compile(r"after [\d.]+ s"), "after N s"),
    (re.compile(r"[▁▂▃▄▅▆▇█]+"), "▁▂▃▅▇"),
    (re.compile(r"^[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", re.MULTILINE), "⠋"),
)


class Terminal:
    """One tmux window of its own server, with the chat in it."""

    def __init__(
        self, folder: Path, command: Sequence[str], *, width: int = 80, height: int = 24
    ) -> None:
        self.socket = folder / "tmux"
        self.began = time.monotonic()
        environment = os.environ | {"XDG_STATE_HOME": str(folder)}
        for name in ("NO_COLOR", "TMUX"):
            environment.pop(name, None)
        self.tmux(
            *("-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height)),
            f"{shlex.join(command)}; echo left with $?; read _",
            env=environment,
        )

    def tmux(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """Run one tmux command and return what it prints."""
        command = ["tmux", "-S", str(self.socket), *arguments]
        done = subprocess.run(command, env=env, check=True, capture_output=True, timeout=30)
        return done.stdout.decode()

    def keys(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self.tmux("send-keys", *keys)

    def enter(self, text: str) -> None:
        """Type a line."""
        self.tmux("send-keys", "-l", text)
        self.keys("Enter")

    def ask(self, text: str) -> None:
        """Type a line and wait until the prompt is back below it."""
        self.enter(text)
        self.wait_for(rf"^> {re.escape(text)}\n(.*\n)*>$")

    def paste(self, text: str) -> None:
        """Paste text as a terminal does it: in brackets."""
        subprocess.run(
            ["tmux", "-S", str(self.socket), "load-buffer", "-"], input=text.encode(), check=True
        )
        self.tmux("paste-buffer", "-p")

    def screen(self, *, whole: bool = False) -> str:
        """Return what can be seen; the ``whole`` of it with what has scrolled away."""
        text = self.tmux("capture-pane", "-p", *(["-S", "-"] if whole else []))
        return "\n".join(line.rstrip() for line in text.rstrip().splitlines()) + "\n"

    def wait_for(self, pattern: str) -> float:
        """Wait until the screen has it; return the seconds since the start."""
        deadline = time.monotonic() + 20
        while not re.search(pattern, self.screen(), re.MULTILINE):
            if time.monotonic() > deadline:
                sys.exit(f"waited for {pattern!r} and saw:\n{self.screen()}")
            time.sleep(0.02)
        return time.monotonic() - self.began


AT_PROMPT = r"^>\n(.*\n)*demo │"


def drive(terminal: Terminal, keep: "Keeper") -> float:
    """Three turns; return the seconds that it took to the first prompt."""
    prompt_s = terminal.wait_for(AT_PROMPT)
    keep("1-start")
    terminal.ask("What is the capital of Italy?")
    keep("2-answered")

    terminal.enter("Write a short story about a fox and a hen.")
    terminal.wait_for("answering")
    time.sleep(1.2)
    terminal.tmux("resize-window", "-x", "50", "-y", "24")
    time.sleep(0.8)
    keep("3-resized")
    terminal.tmux("resize-window", "-x", "80", "-y", "24")
    time.sleep(0.4)
    terminal.keys("C-c")
    terminal.wait_for(r"^stopped.*\n(.*\n)*>$")
    keep("4-stopped", whole=True)
    lines = terminal.screen(whole=True)
    assert lines.count("│ context") == 1, "the status line left something behind"
    assert lines.count("Write a short story about a fox and a hen.") == 1

    terminal.tmux("send-keys", "-l", "How many lines are these?")
    terminal.keys("Escape", "Enter")
    terminal.paste(PASTED)
    time.sleep(0.5)
    keep("5-pasted")
    terminal.enter("")
    terminal.wait_for("answering|\n>")
    terminal.wait_for(r"\n>\s*\n(.*\n)*demo │")
    lines = terminal.screen(whole=True)
    message = PASTED.rstrip().replace("\n", "\n  ")
    assert f"> How many lines are these?\n  {message}\n" in lines, "the paste does not stand whole"
    return prompt_s


def save_and_load(terminal: Terminal, keep: "Keeper", path: Path) -> None:
    """Save, forget, load and go on; then a narrow terminal and a mistyped command."""
    for line in (f"/save {path.name}", "/clear", f"/load {path.name}"):
        terminal.ask(line)
    terminal.ask("What is the capital of France?")
    keep("6-loaded")
    terminal.ask("/stats")
    keep("7-stats")
    terminal.keys("C-l")
    terminal.tmux("resize-window", "-x", "40", "-y", "24")
    terminal.ask("/hlep")
    keep("8-narrow")
    terminal.keys("C-d")
    terminal.wait_for("left with 0")


class Keeper:
    """Writes screens, masked, one file each."""

    def __init__(self, terminal: Terminal, folder: Path) -> None:
        self.terminal, self.folder, self.names = terminal, folder, list[str]()

    def __call__(self, name: str, *, whole: bool = False) -> None:
        """Keep the screen as it is now."""
        text = self.terminal.screen(whole=whole)
        for pattern, mask in MASKS:
            text = pattern.sub(mask, text)
        (self.folder / f"{name}.txt").write_text(text, encoding="utf-8")
        self.names.append(name)


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        chat = [*MOESTREAM, "chat", "demo", "--temp", "0", "--seed", "1", "-n", "300"]
        terminal = Terminal(home, ["env", "-C", scratch, *chat])
        try:
            keep = Keeper(terminal, folder)
            prompt_s = drive(terminal, keep)
            save_and_load(terminal, keep, home / "talk.json")
            messages = json.loads((home / "talk.json").read_text(encoding="utf-8"))["messages"]
            assert len(messages) == 6
            assert messages[4]["content"].count("\n") == 40
        finally:
            terminal.tmux("kill-server")
    print(json.dumps({"prompt_s": round(prompt_s, 2), "screens": keep.names}))


if __name__ == "__main__":
    main()
