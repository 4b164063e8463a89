"""What a chat needs of its user's side, be it a terminal or plain lines."""

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from moestream.terminal.status import Status

Fields = Sequence[tuple[str, str]]


class View(Protocol):
    """Where one answer appears."""

    def add(self, kind: str, text: str) -> None:
        """Show a piece of text, of the ``reasoning`` or of the ``answer``."""

    def update(self, status: Status, tokens: int) -> None:
        """Tell what goes on, and how many tokens there are by now."""


class Screen(Protocol):
    """What a chat needs of its user's side."""

    stays: bool
    """Whether Ctrl-C ends an answer alone, and not the program."""

    def read(self, status: Status) -> str | None:
        """Return what the user says next; None at the end."""

    def note(self, text: str) -> None:
        """Tell something about the chat."""

    def error(self, text: str) -> None:
        """Tell what is wrong."""

    def fields(self, title: str, fields: Fields) -> None:
        """Tell labels and values."""

    def answering(self, reasoning: str) -> AbstractContextManager[View]:
        """Show an answer; ``reasoning`` is ``show``, ``dim`` or ``hide``."""

    def stopping(self) -> None:
        """Tell that the answer will end where it can: from a signal's handler, so without locks."""


def can_draw() -> bool:
    """Whether standard input and output are a terminal that moves its cursor."""
    streams = (sys.stdin, sys.stdout)
    terminals = all(stream is not None and stream.isatty() for stream in streams)
    return terminals and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
