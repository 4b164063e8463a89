"""Markdown as rows of a terminal: every word that was said, and code that can be copied.

Owns how blocks and marks look. Colours are those that can be read on dark and on light terminals.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markdown_it.tree import SyntaxTreeNode
from pygments.token import Comment, Keyword, Name, Number, String, Token
from rich import box
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Span, Text

from moestream.terminal.dialect import parser

_THEME = ANSISyntaxTheme(
    {
        Token: Style(),
        Comment: Style(dim=True, italic=True),
        Comment.Preproc: Style(color="red"),
        Keyword: Style(color="magenta"),
        Name.Function: Style(bold=True),
        Name.Class: Style(bold=True),
        Number: Style(color="red"),
        String: Style(color="green"),
    }
)
_STYLES = {"strong": "bold", "em": "italic", "s": "strike", "link": "underline", "th": "bold"}
_CODE = "magenta"
_TAB = 4
_LEAST = 8
"""Columns that a text must have; where there are fewer, it is not indented."""


@dataclass(slots=True)
class Row:
    """One row; a row of code is not indented with what it stands in, so that it can be copied."""

    segments: list[Segment]
    is_code: bool = False


def draw(console: Console, markdown: str, width: int, *, fold_code: bool) -> list[Row]:
    """Draw Markdown in so many columns; code is as wide as it is, unless it is to be folded."""
    tree = SyntaxTreeNode(parser().parse(markdown))
    return _Page(console, fold_code, width).blocks(tree.children, width)


class _Page:
    """The drawing of a block and what it contains."""

    def __init__(self, console: Console, fold_code: bool, width: int) -> None:
        self._console = console
        self._ascii = console.options.ascii_only
        self._fold_code = fold_code
        self._width = width

    def blocks(
        self, nodes: Iterable[SyntaxTreeNode], width: int, *, tight: bool = False
    ) -> list[Row]:
        """Blocks below each other, with a row between them unless they are ``tight``."""
        rows: list[Row] = []
        for node in nodes:
            drawn = self._block(node, width)
            if rows and drawn and not tight:
                rows.append(Row([]))
            rows += drawn
        return rows

    def _block(self, node: SyntaxTreeNode, width: int) -> list[Row]:
        kind = node.type
        if kind in ("fence", "code_block"):
            return self._code(node)
        if kind in ("bullet_list", "ordered_list"):
            return self._list(node, width)
        if kind == "blockquote":
            return self._beside("| " if self._ascii else "▌ ", node.children, width, again=True)
        if kind == "table":
            return self._lines(self._table(node), width)
        if kind == "hr":
            return self._lines(Text(("-" if self._ascii else "─") * width, "dim"), width)
        text = inline(node.children)
        if kind == "heading":
            text.stylize("bold underline" if node.tag == "h1" else "bold")
        return self._lines(text, width)

    def _lines(self, drawn: Text | Table, width: int) -> list[Row]:
        options = self._console.options.update(width=max(width, 1))
        return [Row(row) for row in self._console.render_lines(drawn, options, pad=False)]

    def _code(self, node: SyntaxTreeNode) -> list[Row]:
        info = node.info.strip() if node.type == "fence" else ""
        code = Syntax("", info.partition(" ")[0] or "text", theme=_THEME)
        text = code.highlight(node.content.expandtabs(_TAB).removesuffix("\n"))
        text.rstrip()
        label = self._code_lines(Text(info, spans=[Span(0, len(info), "dim")])) if info else []
        return [*label, *self._code_lines(text)]

    def _code_lines(self, text: Text) -> list[Row]:
        if self._fold_code:
            text.overflow, text.no_wrap = "fold", False
            rows = [row.segments for row in self._lines(text, self._width)]
        else:
            rows = [[*line.render(self._console)] for line in text.split("\n", allow_blank=True)]
        return [Row(row, is_code=True) for row in rows]

    def _list(self, node: SyntaxTreeNode, width: int) -> list[Row]:
        tight = any(child.hidden for item in node.children for child in item.children)
        bullet = "* " if self._ascii else "• "
        marks = [f"{item.info}{item.markup} " if item.info else bullet for item in node.children]
        indent = max(map(len, marks), default=0)
        rows: list[Row] = []
        for mark, item in zip(marks, node.children, strict=True):
            if rows and not tight:
                rows.append(Row([]))
            rows += self._beside(mark.rjust(indent), item.children, width, tight=tight)
        return rows

    def _beside(
        self,
        mark: str,
        nodes: Sequence[SyntaxTreeNode],
        width: int,
        *,
        tight: bool = False,
        again: bool = False,
    ) -> list[Row]:
        """Blocks right of a mark, which is repeated in every row or stands in the first."""
        room = width - len(mark)
        if room < _LEAST:
            return [Row([Segment(mark)]), *self.blocks(nodes, width, tight=tight)]
        rows = self.blocks(nodes, room, tight=tight)
        if not again and (not rows or rows[0].is_code):
            rows.insert(0, Row([]))
        for index, row in enumerate(rows):
            if not row.is_code:
                shown = mark if again or index == 0 else " " * len(mark)
                row.segments.insert(0, Segment(shown, Style(dim=again)))
        return rows

    def _table(self, node: SyntaxTreeNode) -> Table:
        table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
        head, *body = [row for part in node.children for row in part.children]
        for cell in head.children:
            aligned = str(cell.attrs.get("style", "")).removeprefix("text-align:") or "left"
            title = inline(cell.children)
            title.stylize("bold")
            table.add_column(title, justify=aligned, overflow="fold")  # type: ignore[arg-type]
        for row in body:
            table.add_row(*(inline(cell.children) for cell in row.children))
        return table


def inline(nodes: Iterable[SyntaxTreeNode]) -> Text:
    """Text with its marks; where a link leads stands behind it."""
    text = Text(overflow="fold")
    for node in nodes:
        if node.type in ("softbreak", "hardbreak"):
            text.append("\n")
        elif node.type == "code_inline":
            text.append(node.content, _CODE)
        elif node.type in ("text", "text_special"):
            text.append(node.content)
        else:
            inner = inline(node.children)
            inner.stylize(_STYLES.get(node.type, ""))
            text.append(inner)
            if node.type in ("link", "image") and node.markup != "autolink":
                text.append(_target(node, inner.plain))
    return text


def _target(node: SyntaxTreeNode, shown: str) -> str:
    """Where a link or an image leads, and its title, as far as that is not what is shown."""
    url = str(node.attrs.get("href") or node.attrs.get("src") or "")
    title = str(node.attrs.get("title") or "")
    told = [*([url] if url != shown else []), *([f'"{title}"'] if title else [])]
    return f" ({' '.join(told)})" if any(told) else ""
