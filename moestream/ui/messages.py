"""What is told about a run, on standard error: errors, warnings, notes; and their log."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moestream.ui.streams import flush, printable, shown, styled, write
from moestream.ui.tables import write_fields

if TYPE_CHECKING:
    import logging

_log: "logging.Logger | None" = None
_quiet = False


def be_quiet() -> None:
    """From now on, write nothing to standard error but errors."""
    global _quiet
    _quiet = True


def is_quiet() -> bool:
    """Whether nothing but errors is to be told."""
    return _quiet


def log_to(path: Path) -> "logging.Logger":
    """From now on write every message, with its time, to the end of a file too.

    Raises:
        OSError: the file cannot be written.
    """
    global _log
    import logging

    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _log = logging.getLogger("moestream")
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    return _log


def log_end(status: int | str | None) -> None:
    """Write to the file of ``log_to``, if there is one, how the run ended."""
    if _log is not None:
        _log.info("ended with status %s", status or 0)


def log_crash() -> None:
    """Write to the file of ``log_to``, if there is one, the exception that is being handled."""
    if _log is not None:
        _log.exception("not foreseen")


def error(message: str) -> None:
    """Write ``error: message``, in one line."""
    if _log is not None:
        _log.error(printable(message))
    _message("error", "bold red", message)


def warning(message: str) -> None:
    """Write ``warning: message``, in one line."""
    if _log is not None:
        _log.warning(printable(message))
    if not _quiet:
        _message("warning", "yellow", message)


def note(message: str) -> None:
    """Write a line about the run, dimmed on a terminal."""
    if _log is not None:
        _log.info(printable(message))
    if not _quiet:
        write(sys.stderr, styled(printable(message), "dim", sys.stderr) + "\n")


def write_text(text: str) -> None:
    """Write a piece of generated text at once; a terminal is not steered by it."""
    write(sys.stdout, shown(text, sys.stdout))
    flush()


def write_note(text: str) -> None:
    """Write a piece of text about the run at once, dimmed on a terminal and not steering it."""
    write(sys.stderr, styled(shown(text, sys.stderr), "dim", sys.stderr))
    if sys.stderr is not None:
        sys.stderr.flush()


def note_fields(title: str, fields: Sequence[tuple[str, str]]) -> None:
    """Write a heading and labels with their values, where notes go."""
    if _log is not None:
        for label, value in fields:
            _log.info("%s: %s: %s", title, printable(label), printable(value))
    if not _quiet:
        write_fields(sys.stderr, title, fields)


def _message(label: str, style: str, message: str) -> None:
    write(sys.stderr, f"{styled(label + ':', style, sys.stderr)} {printable(message)}\n")
