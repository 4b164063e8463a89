"""Draw docs/streaming.svg: what of a model is where, and when it is read.

python scripts/docs/streaming_picture.py docs/streaming.svg
"""

import argparse
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 920, 530
INK, QUIET, GREY, BLUE, ORANGE, GREEN = (
    *("#1f2933", "#5f6c7b", "#d5dbe3", "#3b76b5", "#e08a1e", "#4c9a5b"),
)
CELL, GAP, EXPERTS = 26, 6, 10
LAYERS = ("layer 6", "layer 7", "layer 8")
HELD = ({0, 3, 4, 7}, {1, 3, 8}, {0, 2, 6, 7})
"""Experts in memory, by layer."""
USED = (set[int](), {3, 5}, set[int]())
"""What the router of layer 7 has just chosen."""
GUESSED = (set[int](), set[int](), {2, 9})
"""What layer 8 will probably choose."""


class Drawing:
    """Collects shapes."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def box(self, x: float, y: float, w: float, h: float, fill: str, **style: object) -> None:
        """A rectangle with rounded corners."""
        more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in style.items())
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="4" fill="{fill}"{more}/>'
        )

    def text(self, x: float, y: float, words: str, **style: object) -> None:
        """A line of text; black and left-aligned unless ``style`` says otherwise."""
        style = {"font_size": 14, "fill": INK} | style
        more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in style.items())
        self.parts.append(f'<text x="{x}" y="{y}"{more}>{escape(words)}</text>')

    def arrow(self, path: str, colour: str, *, dashed: bool = False) -> None:
        """A curve with a head."""
        dashes = ' stroke-dasharray="6 4"' if dashed else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2.5"{dashes} '
            f'marker-end="url(#{colour[1:]})"/>'
        )

    def svg(self) -> str:
        """The file's text."""
        heads = "".join(
            f'<marker id="{colour[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" '
            f'markerHeight="5" orient="auto"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
            for colour in (ORANGE, GREEN)
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" font-family="DejaVu Sans, Helvetica, sans-serif" '
            'role="img" aria-label="Dense weights and hot experts are in memory; the experts that '
            'the router asks for and that are not there are read from the file at once">\n'
            f"<defs>{heads}</defs>\n" + "\n".join(self.parts) + "\n</svg>\n"
        )


def cell_place(panel_x: float, layer: int, expert: int) -> tuple[float, float]:
    """Where an expert's cell begins."""
    return panel_x + 78 + expert * (CELL + GAP), 184 + layer * (CELL + 18)


def draw_experts(to: Drawing, panel_x: float, *, on_disk: bool) -> None:
    """A row of cells for each layer."""
    for layer, name in enumerate(LAYERS):
        to.text(panel_x + 16, cell_place(panel_x, layer, 0)[1] + 18, name, fill=QUIET, font_size=13)
        for expert in range(EXPERTS):
            x, y = cell_place(panel_x, layer, expert)
            if on_disk:
                fill, edge = GREY, {}
            elif expert in HELD[layer]:
                fill, edge = BLUE, {}
            else:
                fill, edge = "#fff", {"stroke": GREY, "stroke_width": 1.5, "stroke_dasharray": 3}
            if not on_disk and expert in USED[layer] - HELD[layer]:
                fill, edge = ORANGE, {}
            if not on_disk and expert in GUESSED[layer] - HELD[layer]:
                fill, edge = GREEN, {}
            if expert in USED[layer]:
                edge = {"stroke": INK, "stroke_width": 2.5}
            to.box(x, y, CELL, CELL, fill, **edge)


def draw_places(to: Drawing) -> None:
    """Memory to the left, the file to the right, and what moves between them."""
    memory, disk = 20, 490
    for x, title in (
        (memory, "in memory: what the budget holds"),
        (disk, "on disk: the GGUF file"),
    ):
        to.box(x, 20, 410, 300, "#f6f8fa", stroke=GREY)
        to.text(x + 16, 46, title, font_weight="bold", font_size=15)
        fill = "#c3d4e8" if x == memory else GREY
        to.box(x + 16, 60, 378, 44, fill)
        to.text(x + 205, 79, "dense weights", text_anchor="middle")
        to.text(
            *(x + 205, 96, "attention, norms, routers, shared experts"),
            **{"text_anchor": "middle", "font_size": 12, "fill": QUIET},
        )
    to.box(memory + 16, 112, 378, 30, "#c3d4e8")
    to.text(memory + 205, 132, "KV cache, buffers", text_anchor="middle")
    to.text(memory + 16, 170, "the experts that are used most", font_size=13, fill=QUIET)
    to.text(disk + 16, 170, "all experts", font_size=13, fill=QUIET)
    draw_experts(to, memory, on_disk=False)
    draw_experts(to, disk, on_disk=True)
    draw_read(to, disk, memory, layer=1, expert=5, colour=ORANGE, side=-1)
    draw_read(to, disk, memory, layer=2, expert=9, colour=GREEN, side=1)


def draw_read(
    to: Drawing, disk: int, memory: int, *, layer: int, expert: int, colour: str, side: int
) -> None:
    """An arrow from an expert in the file to its place in memory, above (-1) or below its row."""
    (from_x, y), (to_x, _) = cell_place(disk, layer, expert), cell_place(memory, layer, expert)
    edge = y if side < 0 else y + CELL
    start, lane, end = edge + 2 * side, edge + 9 * side, edge + 3 * side
    half = CELL / 2
    to.arrow(f"M{from_x + half} {start}V{lane}H{to_x + half}V{end}", colour, dashed=side > 0)


def draw_times(to: Drawing) -> None:
    """What the processor and the disk do while layer 7 and the beginning of 8 are computed."""
    top, bar = 382, 34
    to.text(20, 358, "a token passes through layer 7", font_weight="bold", font_size=15)
    outlined = "outlined: the two experts that its router chose"
    to.text(900, 358, outlined, text_anchor="end", fill=QUIET, font_size=13)
    to.text(20, top + 22, "processor", fill=QUIET, font_size=13)
    to.text(20, top + 76, "disk", fill=QUIET, font_size=13)
    steps = (
        (100, 120, "#c3d4e8", "attention", INK),
        (220, 62, INK, "router", "#fff"),
        (282, 150, BLUE, "experts here", "#fff"),
        (470, 120, ORANGE, "the other", "#fff"),
        (590, 120, "#c3d4e8", "attention of 8", INK),
        (710, 62, INK, "router", "#fff"),
        (772, 128, BLUE, "experts of 8", "#fff"),
    )
    for x, width, fill, words, colour in steps:
        to.box(x, top, width, bar, fill)
        to.text(x + width / 2, top + 22, words, text_anchor="middle", fill=colour, font_size=13)
    to.box(432, top, 38, bar, "#fff", stroke=ORANGE, stroke_dasharray=3)
    to.text(451, top + 22, "wait", text_anchor="middle", font_size=11, fill=QUIET)
    to.box(282, top + 54, 188, bar, ORANGE)
    to.text(376, top + 76, "what is missing", text_anchor="middle", fill="#fff", font_size=13)
    to.box(474, top + 54, 200, bar, GREEN)
    to.text(574, top + 76, "guesses for layer 8", text_anchor="middle", fill="#fff", font_size=13)


def draw_legend(to: Drawing) -> None:
    """What the colours mean."""
    rows = (
        (BLUE, "in memory already: a hit"),
        (ORANGE, "chosen and not there: read at once, all together"),
        (GREEN, "guessed by the next layer's router: read after that"),
    )
    for (fill, words), x in zip(rows, (20, 222, 562), strict=True):
        to.box(x, 490, 18, 18, fill)
        to.text(x + 26, 504, words, font_size=12.5)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    drawing = Drawing()
    drawing.box(0, 0, WIDTH, HEIGHT, "#ffffff")
    draw_places(drawing)
    draw_times(drawing)
    draw_legend(drawing)
    parser.parse_args().file.write_text(drawing.svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
