"""A chat on a terminal: the line editor, and answers as they are written."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moestream import ui
from moestream.terminal.answer import AnswerView
from moestream.terminal.line_editor import CONTINUATION, PROMPT, Complete, LineEditor, open_history
from moestream.terminal.live import LiveRegion, Size
from moestream.terminal.status import Status

_SMALLEST = (20, 5)
"""What a terminal is taken for that does not know how large it is."""


class RichScreen:
    """The whole of a terminal's means."""

    stays = True

    def __init__(self, complete: Complete, history: Path | None) -> None:
        """``history``: the file that entered lines are kept in, if they are to be kept."""
        self._console = Console(file=sys.stdout, highlight=False)
        kept = None
        if history is not None:
            try:
                kept = open_history(history)
            except OSError as error:
                ui.warning(f"{history}: {error.strerror}; what you enter is not kept for next time")
        self._prompt = LineEditor(complete, kept)
        self._view: AnswerView | None = None

    def read(self, status: Status) -> str | None:
        """Return what was entered, which stays on the screen; None when the user leaves."""
        text = self._prompt.read(status)
        if text is not None and text.strip():
            lines = ui.printable_lines(text).replace("\n", f"\n{CONTINUATION}")
            # Wrapped by the terminal, so that it can be copied as it was.
            self._console.print(Text.assemble((PROMPT, "bold"), lines), soft_wrap=True)
        return text

    def note(self, text: str) -> None:
        """Write a line, dimmed."""
        self._console.print(Text(ui.printable(text), "dim"))

    def error(self, text: str) -> None:
        """Write ``error: ...``."""
        self._console.print(Text.assemble(("error:", "bold red"), " ", ui.printable(text)))

    def fields(self, title: str, fields: Sequence[tuple[str, str]]) -> None:
        """Write a heading and two columns."""
        table = Table.grid(padding=(0, 0, 0, 2))
        for label, value in fields:
            table.add_row(Text(ui.printable(label)), Text(ui.printable(value)))
        self._console.print(Text(title, "bold"), table)

    @contextmanager
    def answering(self, reasoning: str) -> Iterator[AnswerView]:
        """Show an answer; keys wait for the next line while it is made."""
        region = LiveRegion(self._write, terminal_size)
        view = self._view = AnswerView(self._console, region, terminal_size, reasoning)
        with _silent_keys(), view:
            yield view
        if view.stopping:
            self._prompt.late.begin()

    def stopping(self) -> None:
        """Say so in the status line."""
        if self._view is not None:
            self._view.stopping = True

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def terminal_size() -> Size:
    """How many columns and rows there are now."""
    with suppress(OSError):
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        if columns and rows:
            return columns, rows
    return _SMALLEST


@contextmanager
def _silent_keys() -> Iterator[None]:
    """Do not show what is typed, which would come in between; it is read with the next line."""
    import termios

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = [*before]
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(terminal, termios.TCSANOW, silent)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(terminal, termios.TCSANOW, before)
