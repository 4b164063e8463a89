"""Markdown that is still being written: which of it is finished, and how it looks.

A block is finished when the next has begun. Finished blocks are drawn once; only the last one is
drawn over and over.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from markdown_it import MarkdownIt
from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.segment import Segment, Segments
from rich.style import Style
from rich.styled import Styled
from rich.text import Text

CODE_THEME = "ansi_dark"
"""Of the terminal's own colours, so that it fits light ones too."""
# All that could steer the terminal, but for new lines and tabs.
_CONTROLS: dict[int, str | None] = {
    code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
} | {ord("\r"): None}


def printable_lines(text: str) -> str:
    """Take out of a text what could steer the terminal."""
    return text.translate(_CONTROLS)


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


def render(console: Console, markdown: str, width: int, style: str = "") -> list[Line]:
    """Draw Markdown in so many cells, in lines without space at their ends."""
    options = console.options.update(width=max(width, 1))
    try:
        drawn = console.render_lines(
            _styled(Markdown(markdown, CODE_THEME), style), options, pad=False
        )
    except Exception:  # a model writes anything, and what it writes must not end the chat
        drawn = console.render_lines(_styled(Text(markdown), style), options, pad=False)
    rows = [_without_end(row) for row in drawn]
    blank = [not Segment.get_line_length(row) for row in rows]
    while rows and blank[-1]:
        rows.pop()
        blank.pop()
    first = next((index for index, empty in enumerate(blank) if not empty), len(rows))
    return _encode(console, rows[first:])


def styled_line(console: Console, text: str, style: str) -> Line:
    """One row of plain text in one style."""
    return _encode(console, [[Segment(text, console.get_style(style))]])[0]


def _styled(drawn: RenderableType, style: str) -> RenderableType:
    return Styled(drawn, style) if style else drawn


def _without_end(row: list[Segment]) -> list[Segment]:
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
    tokens = _parser().parse(text)
    opening = (token for token in tokens if token.level == 0 and token.nesting >= 0)
    return [token.map[0] for token in opening if token.map]


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt().enable("strikethrough").enable("table")  # as rich reads it
