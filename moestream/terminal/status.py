"""The status line: what is told of speed, context and streaming, in the width that there is.

Pure: numbers in, one line out.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from moestream.ui import format_memory, printable


@dataclass(frozen=True, slots=True)
class Status:
    """What the line tells; None where there is nothing to tell."""

    model: str
    context_used: int
    context_length: int
    activity: str = ""
    """What goes on, such as ``thinking``; empty at the prompt."""
    tps: float | None = None
    streamed: tuple[float | None, int, int] | None = None
    """Share of hits, bytes pinned, bytes read."""

    def line(self, width: int, *, rates: Collection[float] = (), ascii_only: bool = False) -> str:
        """Everything that fits in ``width`` cells, the most important of it if not all does.

        ``rates`` are the last speeds, for the sparkline.
        """
        separator = " | " if ascii_only else " │ "
        # By rank: what has the largest goes first where there is no room.
        parts = [part for part in self._parts(rates, ascii_only) if part[1]]
        while len(parts) > 1 and cell_len(separator.join(text for _, text in parts)) > width:
            parts.remove(max(parts, key=lambda part: part[0]))
        text = separator.join(text for _, text in parts)
        return text if cell_len(text) <= width else set_cell_size(text, width)

    def _parts(self, rates: Collection[float], ascii_only: bool) -> list[tuple[int, str]]:
        share = self.context_used / self.context_length
        context = f"context {self.context_used}/{self.context_length} ({share:.0%})"
        speed = "" if self.tps is None else f"{self.tps:.1f} tok/s"
        model = printable(self.model)
        parts = [
            (8, model.encode("ascii", "replace").decode() if ascii_only else model),
            (0, self.activity),
            (1, speed),
            (7, sparkline(rates, ascii_only=ascii_only)),
            (2, context),
        ]
        if self.streamed is not None:
            hit_rate, pinned, read = self.streamed
            parts += [
                (3, "" if hit_rate is None else f"hits {hit_rate:.1%}"),
                (5, f"pinned {format_memory(pinned)}"),
                (4, f"read {format_memory(read)}"),
            ]
        return parts


BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-=+*%#"
SPARKS = 12
_SAMPLE_S = 0.25


def sparkline(rates: Collection[float], *, ascii_only: bool = False) -> str:
    """One bar a rate, from nothing to the highest of them."""
    bars = ASCII_BARS if ascii_only else BARS
    highest = max(rates, default=0.0)
    if highest <= 0:
        return ""
    return "".join(bars[min(int(rate / highest * len(bars)), len(bars) - 1)] for rate in rates)


class Rates:
    """The last rates at which something was counted, one each quarter of a second or longer."""

    def __init__(self) -> None:
        self.values: deque[float] = deque(maxlen=SPARKS)
        self._count = 0
        self._since: float | None = None

    def see(self, count: int, now: float) -> None:
        """Take note of the count at a time, in seconds; it must have grown for a rate."""
        if self._since is None:
            self._count, self._since = count, now
        elif count > self._count and now - self._since >= _SAMPLE_S:
            self.values.append((count - self._count) / (now - self._since))
            self._count, self._since = count, now
