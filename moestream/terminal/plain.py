"""A chat in plain lines: for pipes, and for terminals that can do no more."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from moestream import ui
from moestream.errors import ConversationError
from moestream.reasons import reason_of
from moestream.terminal.interrupt import Late, Terminated
from moestream.terminal.status import Status


class PlainScreen:
    """Each line of standard input is a turn; answers go to standard output, all else to error."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._typed = sys.stdin is not None and sys.stdin.isatty()
        self.stays = self._typed
        self._late = Late()
        self._lines = 0

    def read(self, status: Status) -> str | None:
        """Return the next line, which is UTF-8 whatever the locale says.

        Raises:
            ConversationError: it is not, and nobody is there to type it again.
        """
        if sys.stdin is None:
            return None
        while True:
            if self._typed:
                ui.write_note("> ")
            line = self._line()
            if not line:
                return None
            self._lines += 1
            try:
                return line.decode("utf-8-sig").rstrip("\r\n")
            except UnicodeDecodeError as error:
                told = f"line {self._lines} of standard input is {reason_of(error)}"
                if not self._typed:
                    raise ConversationError(f"{told}; convert it, and start again") from None
                self.error(told)

    def _line(self) -> bytes:
        """The next line; nothing at the end, or where Ctrl-C leaves a chat that is typed."""
        while True:
            try:
                return sys.stdin.buffer.readline()
            except Terminated:
                raise
            except KeyboardInterrupt:
                if not self._typed:
                    raise
                if not self._late.covers():
                    return b""

    def note(self, text: str) -> None:
        """Write a line to standard error."""
        if not self._quiet:
            ui.note(text)

    def error(self, text: str) -> None:
        """Write ``error: ...`` to standard error."""
        ui.error(text)

    def fields(self, title: str, fields: Sequence[tuple[str, str]]) -> None:
        """Write labels and values to standard error."""
        ui.note_fields(title, fields)

    def stopping(self) -> None:
        """Say so, past Python's streams, one of which may be in use."""
        self._late.begin()
        if not self._quiet and ui.on_terminal():
            os.write(2, b"\nstopping\n")

    @contextmanager
    def answering(self, reasoning: str) -> Iterator["PlainView"]:
        """Write an answer and the end of its line."""
        view = PlainView(reasoning)
        try:
            yield view
        finally:
            view.end()


class PlainView:
    """Writes an answer as it comes. Reasoning that is not to be shown as text is a note."""

    def __init__(self, reasoning: str) -> None:
        self._reasoning = reasoning
        self._last = ("", "")

    def add(self, kind: str, text: str) -> None:
        """Write a piece of text."""
        if kind == "reasoning" and self._reasoning == "hide":
            return
        if self._last[0] not in ("", kind):
            self.end()
        self._last = (kind, text)
        if kind == "reasoning" and self._reasoning == "dim":
            ui.write_note(text)
        else:
            ui.write_text(text)

    def update(self, status: Status, tokens: int) -> None:
        """Plain lines have no place for it."""

    def end(self) -> None:
        """End the line that was begun."""
        kind, text = self._last
        if not text or text.endswith("\n"):
            return
        if kind == "reasoning" and self._reasoning == "dim":
            ui.write_note("\n")
        else:
            ui.write_text("\n")
