"""What was asked for: lines, JSON, labels with values, tables and maps."""

import itertools
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from itertools import groupby
from typing import Any, TextIO

from moestream.ui.streams import console_of, has_no_colours, printable, styled, write

_LEAST_COLUMNS = 20
_ESCAPES = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
_HEAT = (
    *((" ", "grey0"), (".", "grey15"), (":", "dark_blue"), ("-", "purple4"), ("=", "dark_magenta")),
    *(("+", "red3"), ("*", "dark_orange3"), ("#", "orange1"), ("%", "yellow1"), ("@", "grey100")),
)
"""From cold to hot: a character, and rich's name of a colour."""


def print_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object in one line; JSON is UTF-8 whatever the locale says.

    What JSON lets stand and a terminal obeys, such as U+009B, is written in escapes.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # A path of bytes that are not UTF-8 has lone surrogates: written ``\udcff``, as JSON may.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    write(sys.stdout, text.translate(_ESCAPES) + "\n")


def print_line(text: str) -> None:
    """Write one line of what was asked for, such as a path, as it is."""
    write(sys.stdout, text + "\n")


def print_fields(title: str, fields: Sequence[tuple[str, str]]) -> None:
    """Write a heading and, under it, labels with their values in a second column."""
    write_fields(sys.stdout, title, fields)


def write_fields(stream: TextIO | None, title: str, fields: Sequence[tuple[str, str]]) -> None:
    """Write the same to any stream; on a terminal, long values are broken between words."""
    cells = [(printable(label), printable(value)) for label, value in fields]
    width = max((len(label) for label, _ in cells), default=0)
    _heading(title, stream)
    room = _columns(stream, 4 + width)
    for label, value in cells:
        lines = [value] if room is None else _broken(value, room)
        write(stream, f"  {label:{width}}  " + f"\n{'':{width + 4}}".join(lines) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a heading and aligned columns; a column name that starts with ``>`` aligns right.

    On a terminal that is narrower, cells are broken between words.
    """
    names = [name.removeprefix(">") for name in columns]
    cells = [names, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    room = _columns(sys.stdout, 2 * len(widths))
    if room is not None:
        widths = _narrowed(cells, widths, room)
    signs = [">" if name.startswith(">") else "<" for name in columns]
    _heading(title, sys.stdout)
    for index, row in enumerate(cells):
        broken = [_broken(cell, width) for cell, width in zip(row, widths, strict=True)]
        for line in itertools.zip_longest(*broken, fillvalue=""):
            padded = [f"{c:{s}{w}}" for c, s, w in zip(line, signs, widths, strict=True)]
            text = ("  " + "  ".join(padded)).rstrip()
            write(sys.stdout, (text if index else styled(text, "dim", sys.stdout)) + "\n")


def _columns(stream: TextIO | None, taken: int) -> int | None:
    """What a terminal has beside so many columns; None where nothing is to be broken."""
    if stream is None or not stream.isatty():
        return None
    return max(console_of(stream).width - taken, _LEAST_COLUMNS)


def _broken(cell: str, width: int) -> list[str]:
    """A cell's lines."""
    if len(cell) <= width:
        return [cell]
    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)


def _narrowed(cells: Sequence[Sequence[str]], widths: Sequence[int], room: int) -> list[int]:
    """Widths that fit together, as far as no word is broken: the widest give way first."""
    found = list(widths)
    least = [
        max(len(word) for cell in column for word in (cell.split() or [""]))
        for column in zip(*cells, strict=True)
    ]
    while sum(found) > room and any(a > b for a, b in zip(found, least, strict=True)):
        index = max((i for i, width in enumerate(found) if width > least[i]), key=found.__getitem__)
        found[index] -= 1
    return found


def print_heat(title: str, labels: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    """Write a map of cells from 0 to 1, a row a label: colours on a terminal, else characters.

    Where a row is wider than the terminal, neighbours share a cell, which shows the hottest.
    """
    width = max(map(len, labels), default=0)
    columns = max(map(len, rows), default=0)
    merged = 1
    if sys.stdout is not None and sys.stdout.isatty():
        merged = -(-columns // max(console_of(sys.stdout).width - width - 4, 1))
    _heading(title + (f" ({merged} in a cell)" if merged > 1 else ""), sys.stdout)
    for label, row in zip(labels, rows, strict=True):
        cells = [max(row[i : i + merged]) for i in range(0, len(row), merged)]
        write(sys.stdout, f"  {label:>{width}}  {_heat(cells)}\n")


def _heat(cells: Sequence[float]) -> str:
    levels = [min(int(max(cell, 0.0) * len(_HEAT)), len(_HEAT) - 1) for cell in cells]
    if sys.stdout is None or not sys.stdout.isatty() or has_no_colours(sys.stdout):
        return "".join(_HEAT[level][0] for level in levels)
    from rich.text import Text

    console = console_of(sys.stdout)
    line = Text()
    for level, run in groupby(levels):
        line.append(" " * len(list(run)), f"on {_HEAT[level][1]}")
    with console.capture() as capture:
        console.print(line, end="", soft_wrap=True)
    return capture.get()


def _heading(title: str, stream: TextIO | None) -> None:
    write(stream, styled(title, "bold", stream) + "\n")
