"""The last rows of the terminal, drawn over and over while all above them stays.

Unlike rich's ``Live`` it counts rows again when the terminal is made narrower, because the
terminal then wraps what was drawn; and nothing is erased before what replaces it is written, so
that nothing flickers.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

from moestream.terminal.markdown import Line

Size = tuple[int, int]
"""Columns and rows."""

_SHARE = 0.75
"""Of the rows, at most: what a narrower terminal wraps beyond its top is out of reach."""
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # shown at once by terminals that know it
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_ERASE_REST, _ERASE_BELOW = "\x1b[K", "\x1b[J"


class LiveRegion:
    """Rows that are drawn over. The cursor is hidden from the first until ``close``."""

    def __init__(self, write: Callable[[str], None], size: Callable[[], Size]) -> None:
        self._write = write
        self._size = size
        self._drawn: list[Line] = []
        self._columns = 0
        self._hidden = False

    def draw(self, permanent: Sequence[Line], live: Sequence[Line]) -> None:
        """Write ``permanent`` lines in place of the region, and the region below them.

        The last of the live lines are kept where there are too many. Those must be narrower than
        the terminal, for a full row would wrap; permanent lines the terminal may wrap.
        """
        columns, rows = self._size()
        live = list(live)[-max(int(rows * _SHARE), 1) :]
        parts = [_BEGIN, "" if self._hidden else _HIDE, self._to_top(columns)]
        if columns != self._columns:  # rows that were wrapped would be joined again once wider
            parts.append(_ERASE_BELOW)
        self._columns = columns
        for line in permanent:
            # At the end of a full row the cursor is still on its last cell: erasing would take it.
            wraps = line.width >= columns
            parts.append(f"{_ERASE_BELOW if wraps else ''}{line.text}")
            parts.append("\r\n" if wraps else f"{_ERASE_REST}\r\n")
        parts.append(f"{_ERASE_REST}\r\n".join(line.text for line in live))
        parts += [_ERASE_BELOW, _END]
        self._hidden, self._drawn = True, live
        self._write("".join(parts))

    def close(self) -> None:
        """Erase the region and show the cursor where it began."""
        if self._hidden:
            with suppress(OSError):  # the terminal has gone: nothing is left to put right
                self._write(self._to_top(self._size()[0]) + _ERASE_BELOW + _SHOW)
        self._hidden, self._drawn = False, []

    def _to_top(self, columns: int) -> str:
        wrapped = (max(-(-line.width // columns), 1) for line in self._drawn)
        up = max(sum(wrapped) - 1, 0)
        return "\r" + (f"\x1b[{up}A" if up else "")
