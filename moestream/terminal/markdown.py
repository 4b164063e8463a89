"""Markdown that is still being written: which of it is finished, and how it looks.

A block is finished when the next has begun. Finished blocks are drawn once; only the last one is
drawn over and over.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from moestream.terminal.dialect import parser
from moestream.terminal.drawing import draw
from moestream.ui import printable_lines

_TWICE = re.compile(r"\[([^\]]+)\]\(\1\)")
"""A link whose text is where it leads: that is shown once."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of text with its codes, and the cells that it takes."""

    text: str
    width: int


class BlockStream:
    """Text that grows, cut into Markdown's top-level blocks."""

    def __init__(self) -> None:
        self.rest = ""
        """The block that is being written."""

    def add(self, text: str) -> list[str]:
        """Return the blocks that are finished now."""
        self.rest += printable_lines(text)
        starts = _block_starts(self.rest)
        if len(starts) < 2:
            return []
        lines = self.rest.split("\n")  # as Markdown counts them; splitlines() knows other ends too
        bounds = [0, *starts[1:], len(lines)]
        *blocks, self.rest = ["\n".join(lines[start:end]) for start, end in pairwise(bounds)]
        return blocks

    def finish(self) -> str:
        """Return the last block, and begin anew."""
        text, self.rest = self.rest, ""
        return text


def render(
    console: Console, markdown: str, width: int, style: str = "", *, fold_code: bool = False
) -> list[Line]:
    """Draw Markdown in so many cells, in lines without space at their ends.

    Lines of code are as long as they are: the terminal wraps them, and they are copied as they
    were; ``fold_code`` keeps them in the width too. Where drawing would lose a letter or a digit,
    the text is drawn as it is written.
    """
    try:
        rows = [row.segments for row in draw(console, markdown, width, fold_code=fold_code)]
        drawn = Counter(_visible("".join(segment.text for row in rows for segment in row)))
        lost = not Counter(_visible(_TWICE.sub(r"\1", markdown))) <= drawn
    except Exception:  # a model writes anything, and what it writes must not end the chat
        lost = True
    if lost:
        options = console.options.update(width=max(width, 1))
        rows = console.render_lines(Text(markdown, overflow="fold"), options, pad=False)
    whole = console.get_style(style) if style else Style()
    rows = [_without_end(Segment.apply_style(row, whole)) for row in rows]
    blank = [not Segment.get_line_length(row) for row in rows]
    while rows and blank[-1]:
        rows.pop()
        blank.pop()
    first = next((index for index, empty in enumerate(blank) if not empty), len(rows))
    return _encode(console, rows[first:])


def _visible(text: str) -> Iterator[str]:
    """All of a text but space and signs that Markdown may take as its own."""
    return (c for c in text if not c.isspace() and c not in string.punctuation)


def styled_line(console: Console, text: str, style: str) -> Line:
    """One row of plain text in one style."""
    return _encode(console, [[Segment(text, console.get_style(style))]])[0]


def _without_end(row: Iterable[Segment]) -> list[Segment]:
    """Drop the space at the end: a terminal made narrower would wrap it to an empty row."""
    kept = [segment for segment in row if not segment.control]
    while kept and not kept[-1].text.rstrip() and not _shows_space(kept[-1].style):
        kept.pop()
    if kept and not _shows_space(kept[-1].style):
        kept[-1] = Segment(kept[-1].text.rstrip(), kept[-1].style)
    return kept


def _shows_space(style: Style | None) -> bool:
    return style is not None and bool(style.bgcolor or style.underline or style.reverse)


def _encode(console: Console, rows: list[list[Segment]]) -> list[Line]:
    segments = [segment for row in rows for segment in (*row, Segment.line())]
    with console.capture() as capture:
        console.print(Segments(segments), end="", soft_wrap=True)
    texts = capture.get().split("\n")
    return [
        Line(text, Segment.get_line_length(row)) for text, row in zip(texts, rows, strict=False)
    ]


def _block_starts(text: str) -> list[int]:
    """The lines at which top-level blocks begin."""
    tokens = parser().parse(text)
    opening = (token for token in tokens if token.level == 0 and token.nesting >= 0)
    return [token.map[0] for token in opening if token.map]
