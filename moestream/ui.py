"""Everything that a person sees: messages, progress, generated text and tables.

What was asked for goes to standard output, everything else to standard error. Colours and bars
appear on a terminal alone (and ``NO_COLOR`` is respected); elsewhere the output is plain text that
is never cut or wrapped. Knows nothing of models: it is handed words and numbers. rich is imported
when something is to be drawn, because it takes 0.1 s.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import logging

    from rich.console import Console

_HEAT = (
    *((" ", "grey0"), (".", "grey15"), (":", "dark_blue"), ("-", "purple4"), ("=", "dark_magenta")),
    *(("+", "red3"), ("*", "dark_orange3"), ("#", "orange1"), ("%", "yellow1"), ("@", "grey100")),
)
"""From cold to hot: a character, and rich's name of a colour."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

_log: "logging.Logger | None" = None


def prepare() -> None:
    """Make both streams put a substitute for what the locale lacks, where Python would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def printable(text: str) -> str:
    """Escape control characters: names in a file must not steer the terminal, nor end a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
    _message("warning", "yellow", message)


def note(message: str) -> None:
    """Write a line about the run, dimmed on a terminal."""
    if _log is not None:
        _log.info(printable(message))
    _write(sys.stderr, _styled(printable(message), "dim", sys.stderr) + "\n")


def write_text(text: str) -> None:
    """Write a piece of generated text at once, as it is."""
    _write(sys.stdout, text)
    flush()


def write_note(text: str) -> None:
    """Write a piece of text about the run at once, as it is, dimmed on a terminal."""
    _write(sys.stderr, _styled(text, "dim", sys.stderr))
    if sys.stderr is not None:
        sys.stderr.flush()


def print_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object in one line; JSON is UTF-8 whatever the locale says."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A path of bytes that are not UTF-8 has lone surrogates: written ``\udcff``, as JSON may.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    _write(sys.stdout, json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def print_line(text: str) -> None:
    """Write one line of what was asked for, such as a path, as it is."""
    _write(sys.stdout, text + "\n")


def print_fields(title: str, fields: Sequence[tuple[str, str]]) -> None:
    """Write a heading and, under it, labels with their values in a second column."""
    _write_fields(sys.stdout, title, fields)


def note_fields(title: str, fields: Sequence[tuple[str, str]]) -> None:
    """Write the same about the run, where notes go."""
    if _log is not None:
        for label, value in fields:
            _log.info("%s: %s: %s", title, printable(label), printable(value))
    _write_fields(sys.stderr, title, fields)


def _write_fields(stream: TextIO | None, title: str, fields: Sequence[tuple[str, str]]) -> None:
    cells = [(printable(label), printable(value)) for label, value in fields]
    width = max((len(label) for label, _ in cells), default=0)
    _heading(title, stream)
    for label, value in cells:
        _write(stream, f"  {label:{width}}  {value}\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a heading and aligned columns; a column name that starts with ``>`` aligns right."""
    names = [name.removeprefix(">") for name in columns]
    cells = [names, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    signs = [">" if name.startswith(">") else "<" for name in columns]
    _heading(title, sys.stdout)
    for index, row in enumerate(cells):
        padded = [f"{c:{s}{w}}" for c, s, w in zip(row, signs, widths, strict=True)]
        line = ("  " + "  ".join(padded)).rstrip()
        _write(sys.stdout, (line if index else _styled(line, "dim", sys.stdout)) + "\n")


def print_heat(title: str, labels: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    """Write a map of cells from 0 to 1, a row a label: colours on a terminal, else characters.

    Where a row is wider than the terminal, neighbours share a cell, which shows the hottest.
    """
    width = max(map(len, labels), default=0)
    columns = max(map(len, rows), default=0)
    merged = 1
    if sys.stdout is not None and sys.stdout.isatty():
        merged = -(-columns // max(_console(sys.stdout).width - width - 4, 1))
    _heading(title + (f" ({merged} in a cell)" if merged > 1 else ""), sys.stdout)
    for label, row in zip(labels, rows, strict=True):
        cells = [max(row[i : i + merged]) for i in range(0, len(row), merged)]
        _write(sys.stdout, f"  {label:>{width}}  {_heat(cells)}\n")


def _heat(cells: Sequence[float]) -> str:
    levels = [min(int(max(cell, 0.0) * len(_HEAT)), len(_HEAT) - 1) for cell in cells]
    if sys.stdout is None or not sys.stdout.isatty() or _has_no_colours(sys.stdout):
        return "".join(_HEAT[level][0] for level in levels)
    from rich.text import Text

    console = _console(sys.stdout)
    line = Text()
    for level, run in groupby(levels):
        line.append(" " * len(list(run)), f"on {_HEAT[level][1]}")
    with console.capture() as capture:
        console.print(line, end="", soft_wrap=True)
    return capture.get()


def _has_no_colours(stream: TextIO) -> bool:
    console = _console(stream)
    return console.no_color or console.color_system is None


@contextmanager
def progress(*, quiet: bool = False, transfer: bool = False) -> Iterator[Progress]:
    """Draw a bar for every step that the yielded function reports, on a terminal alone.

    Elsewhere a line tells which step has begun; nothing does when ``quiet``. Bars of a
    ``transfer`` count bytes, and have its rate.
    """
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        begun: set[str] = set()

        def name_once(step: str, done: int, total: int) -> None:
            if not quiet and step not in begun:
                begun.add(step)
                note(step)

        yield name_once
        return
    from rich import progress as bars
    from rich.text import Text

    columns: list[bars.ProgressColumn] = [
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
    ]
    if transfer:
        columns[3:3] = [bars.DownloadColumn(), bars.TransferSpeedColumn()]
    with bars.Progress(*columns, console=_console(sys.stderr), transient=True) as drawing:
        tasks: dict[str, bars.TaskID] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                # What was there at the start is no part of the rate.
                name = Text(printable(step)).markup
                tasks[step] = drawing.add_task(name, total=total, completed=done)
            drawing.update(tasks[step], completed=done, total=total)

        yield report


@contextmanager
def working(message: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Show that something without a length is under way, on a terminal alone.

    If a part of it turns out to have one, the yielded function draws it as ``progress`` does.
    """
    with ExitStack() as stack:
        status = None
        if not quiet and sys.stderr is not None and sys.stderr.isatty():
            from rich.text import Text

            status = stack.enter_context(_console(sys.stderr).status(Text(printable(message))))
        bars: Progress | None = None

        def report(step: str, done: int, total: int) -> None:
            nonlocal bars
            if bars is None:
                if status is not None:
                    status.stop()  # one drawing at a time
                bars = stack.enter_context(progress(quiet=quiet))
            bars(step, done, total)

        yield report


def flush() -> None:
    """Hand standard output to the system, so that its errors show here and not at exit."""
    if sys.stdout is not None:
        sys.stdout.flush()


def abandon_output() -> None:
    """Send what is left for standard output nowhere: it broke, and exit must not try it again."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def format_bytes(n_bytes: int) -> str:
    """Bytes in decimal units, to three digits: ``1.32 GB``."""
    return _scaled(n_bytes, (" bytes", " kB", " MB", " GB", " TB"))


def format_memory(n_bytes: float) -> str:
    """Bytes in the binary units in which budgets are given, to three digits: ``1.23G``."""
    value, units = float(n_bytes), ["", "K", "M", "G", "T"]
    while value >= 999.5 and len(units) > 1:
        value /= 1024
        del units[0]
    whole = units[0] == "" or value >= 99.95
    return f"{value:.{0 if whole else 2 if value < 9.995 else 1}f}{units[0] or ' bytes'}"


def format_count(count: int) -> str:
    """A count as model names have it: ``135M``, ``30.5B``."""
    return _scaled(count, ("", "K", "M", "B", "T"))


def _scaled(number: int, units: Sequence[str]) -> str:
    if number < 1000:
        return f"{number}{units[0]}"
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{units[unit]}"


def _message(label: str, style: str, message: str) -> None:
    _write(sys.stderr, f"{_styled(label + ':', style, sys.stderr)} {printable(message)}\n")


def _heading(title: str, stream: TextIO | None) -> None:
    _write(stream, _styled(title, "bold", stream) + "\n")


def _styled(text: str, style: str, stream: TextIO | None) -> str:
    """Return ``text`` with the codes of a style, where the stream is a terminal that has them."""
    if stream is None or not stream.isatty():
        return text
    from rich.text import Text

    console = _console(stream)
    with console.capture() as capture:
        console.print(Text(text, style), end="", soft_wrap=True)
    return capture.get()


@functools.cache
def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    return Console(file=stream, highlight=False)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is not None:  # None when closed by the caller, as with ``>&-``
        stream.write(text)
