"""The two streams: characters that are safe on them, styles where a terminal has them."""

import functools
import os
import sys
import threading
from io import TextIOWrapper
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def prepare() -> None:
    """Make both streams put a substitute for what the locale lacks, where Python would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def printable(text: str) -> str:
    """Escape control characters: names in a file must not steer the terminal, nor end a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# All that could steer the terminal, but for new lines and tabs.
_CONTROLS: dict[int, str | None] = {
    code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
} | {ord("\r"): None}


def printable_lines(text: str) -> str:
    """Take out of a text what could steer the terminal; lines stay lines."""
    return text.translate(_CONTROLS)


def shown(text: str, stream: TextIO | None) -> str:
    """A model's text as a stream is to have it: as it is, but for what could steer a terminal."""
    return printable_lines(text) if stream is not None and stream.isatty() else text


@functools.cache
def hide_lines(start: str) -> None:
    """From now on, leave out of standard error what native code writes with this at its start."""
    if sys.stderr is None:
        return
    sys.stderr.flush()
    errors, heard_from, lines = os.dup(2), sys.stderr, os.pipe()
    os.dup2(lines[1], 2)
    os.close(lines[1])
    sys.stderr = open(  # noqa: PTH123, SIM115 - a descriptor, for good
        errors, "w", encoding=heard_from.encoding, errors="replace", buffering=1
    )

    def work() -> None:
        with open(lines[0], "rb") as native:  # noqa: PTH123 - a descriptor
            for line in native:
                if not line.startswith(start.encode()):
                    os.write(errors, line)

    threading.Thread(target=work, name="errors", daemon=True).start()


def flush() -> None:
    """Hand standard output to the system, so that its errors show here and not at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def abandon_output() -> None:
    """Send what is left for standard output nowhere: it broke, and exit must not try it again."""
    if sys.stdout is not None:
        _abandon(sys.stdout)


def _abandon(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def styled(text: str, style: str, stream: TextIO | None) -> str:
    """Return ``text`` with the codes of a style, where the stream is a terminal that has them."""
    if stream is None or not stream.isatty():
        return text
    from rich.text import Text

    console = console_of(stream)
    with console.capture() as capture:
        console.print(Text(text, style), end="", soft_wrap=True)
    return capture.get()


def has_no_colours(stream: TextIO) -> bool:
    """Whether a terminal has none, or was told to have none."""
    console = console_of(stream)
    return console.no_color or console.color_system is None


@functools.cache
def console_of(stream: TextIO) -> "Console":
    """Rich's way to draw on a stream; one for each."""
    from rich.console import Console

    return Console(file=stream, highlight=False)


def write(stream: TextIO | None, text: str) -> None:
    """Write text as it is. What cannot be told of a run does not end it: a log's disk is full."""
    if stream is None:  # closed by the caller, as with ``>&-``
        return
    try:
        stream.write(text)
    except BrokenPipeError:
        raise
    except OSError:
        if stream is not sys.stderr:
            raise
        _abandon(stream)
