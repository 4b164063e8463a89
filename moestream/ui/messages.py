"""What is told about a run, on standard error: errors, warnings, notes; and their log."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from moestream.errors import MoestreamWarning
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


def hear_warnings() -> None:
    """From now on tell Python's warnings in our own way.

    One of ours is a line of text; those of others are of use in a log alone.
    """
    warnings.showwarning = _show_warning


def hear_library() -> None:
    """From now on tell what the library logs in our own way; once is enough."""
    from moestream.ui.logs import Listener, logger

    if not any(isinstance(each, Listener) for each in logger.handlers):
        logger.addHandler(Listener(lambda text: None if _quiet else _warn(text)))
        logger.propagate = False


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, MoestreamWarning):
        warning(str(message))
    elif _log is not None:
        _log.info("%s, line %d: %s: %s", filename, lineno, category.__name__, message)


def log_to(path: Path) -> "logging.Logger":
    """From now on write every message, with its time, to the end of a file too.

    Raises:
        OSError: the file cannot be written.
    """
    global _log
    from moestream.ui.logs import log_to_file

    hear_library()
    _log = log_to_file(path, warning)
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
        _warn(message)


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


def _warn(message: str) -> None:
    _message("warning", "yellow", message)
