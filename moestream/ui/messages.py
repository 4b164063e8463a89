"""What is told about a run, on standard error: errors, warnings, notes; and their log."""

import logging
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from moestream.errors import MoestreamWarning
from moestream.ui.streams import flush, printable, styled, write
from moestream.ui.tables import write_fields

_log: logging.Logger | None = None
_logger = logging.getLogger("moestream")
_quiet = False


def be_quiet() -> None:
    """From now on, write nothing to standard error but errors."""
    global _quiet
    _quiet = True


def is_quiet() -> bool:
    """Whether nothing but errors is to be told."""
    return _quiet


class _Told(logging.Handler):
    """Tells what the library logs; what is told here anyway it need not."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != _logger.name and not _quiet:
            _message("warning", "yellow", record.getMessage())


class _LogFile(logging.FileHandler):
    """A log file; where it cannot be written, that is told once, and the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        reason = getattr(sys.exception(), "strerror", None) or "it cannot be written"
        _logger.removeHandler(self)
        with suppress(OSError):
            self.close()
        warning(f"{self.baseFilename}: {reason}; nothing more is written to this log")


def hear_others() -> None:
    """From now on tell in our own way what Python and the library would tell in theirs.

    A warning of ours is one line of text; those of others are of use in a log alone.
    """
    warnings.showwarning = _show_warning
    _logger.addHandler(_Told(logging.WARNING))
    _logger.propagate = False


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


def log_to(path: Path) -> logging.Logger:
    """From now on write every message, with its time, to the end of a file too.

    Raises:
        OSError: the file cannot be written.
    """
    global _log
    handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _log = _logger
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
    """Write a piece of generated text at once, as it is."""
    write(sys.stdout, text)
    flush()


def write_note(text: str) -> None:
    """Write a piece of text about the run at once, as it is, dimmed on a terminal."""
    write(sys.stderr, styled(text, "dim", sys.stderr))
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
