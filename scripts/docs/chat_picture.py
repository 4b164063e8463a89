"""Take a picture of `moestream chat demo` in a real terminal, as SVG.

Needs tmux and the demo model. What is drawn is the terminal's own screen, colours included; the
speed in it is this machine's.

    python scripts/docs/chat_picture.py docs/chat.svg
"""

import argparse
import io
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.capped import MOESTREAM
from docs.chat_screens import AT_PROMPT, Terminal

WIDTH, HEIGHT = 90, 19
CELL = 12.2
"""Width of a character in rich's drawing."""
QUESTIONS = (
    "What is the capital of Italy?",
    "And of Japan?",
    "Write a Python function that reverses a string.",
)
COMMAND = ["chat", "demo", "--budget", "700M", "--temp", "0", "--seed", "1", "-q"]
TITLE = "moestream chat demo --budget 700M"


def draw(ansi: str) -> str:
    """The SVG of a screen as tmux captures it."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(ansi.rstrip("\n")), no_wrap=True, crop=True)
    svg = console.export_svg(title=TITLE, unique_id="chat")
    # The picture is to need nothing from elsewhere: no fonts of the network, no credits.
    svg = re.sub(r"\s*@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("font-family: Fira Code, monospace", "font-family: monospace")
    return re.sub(
        r'x="([\d.]+)" (y="[\d.]+") textLength="([\d.]+)"([^>]*)>((?:&#160;)+)', _indent, svg
    )


def _indent(match: re.Match[str]) -> str:
    """Begin a text where its first letter is: some programs drop space at the beginning."""
    x, y, length, rest, spaces = match.groups()
    width = CELL * spaces.count(";")
    return f'x="{float(x) + width:.1f}" {y} textLength="{float(length) - width:.1f}"{rest}>'


def main() -> None:
    """Ask, and take the picture when the last answer is written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    with tempfile.TemporaryDirectory() as scratch:
        command = ["env", "-C", scratch, "COLORTERM=truecolor", *MOESTREAM, *COMMAND]
        terminal = Terminal(Path(scratch), command, width=WIDTH, height=HEIGHT)
        try:
            terminal.wait_for(AT_PROMPT)
            for question in QUESTIONS:
                terminal.ask(question)
            ansi = terminal.tmux("capture-pane", "-p", "-e")
        finally:
            terminal.tmux("kill-server")
    file.write_text(draw(ansi), encoding="utf-8")


if __name__ == "__main__":
    main()
