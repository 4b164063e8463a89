"""An answer as it is written: finished Markdown above, the block under way and the status below.

Owns the thread that draws, so that the line goes on while the model is slow. What drawing costs
is bounded: after each frame it rests several times as long as that took.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from types import TracebackType
from typing import Self

from rich.console import Console

from moestream.terminal.live import LiveRegion, Size
from moestream.terminal.markdown import BlockStream, Line, render, styled_line
from moestream.terminal.status import Rates, Status

_FRAME_S = 0.08
_REST = 5
"""A frame is followed by so many times its own length of rest."""
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_SPINNER = "|/-\\"
_LEAST_COLUMNS = 8
_BLANK = Line("", 0)


class AnswerView:
    """Draws one answer. A context manager: at its end the whole answer stands in the terminal."""

    def __init__(
        self, console: Console, region: LiveRegion, size: Callable[[], Size], reasoning: str
    ) -> None:
        """``reasoning``: ``show``, ``dim`` or ``hide``."""
        self._console = console
        self._region = region
        self._size = size
        self._reasoning = reasoning
        self._rates = Rates()
        self._status: Status | None = None
        self.stopping = False
        """Whether it was asked to end."""
        self._blocks = BlockStream()
        self._kind = ""
        self._kind_since = 0.0
        self._any = True  # what was said stands above
        self._frame = 0
        self._new: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def add(self, kind: str, text: str) -> None:
        """Show a piece of text, of the ``reasoning`` or of the ``answer``."""
        with self._lock:
            self._new.append((kind, text))

    def update(self, status: Status, tokens: int) -> None:
        """Tell what the status line is to say, and how many tokens there are by now."""
        self._rates.see(tokens, time.monotonic())
        self._status = status

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        with suppress(OSError):  # the terminal has gone: the answer is saved all the same
            self._region.draw([*self._take(), *self._end_of_kind(), *self._space()], [])
        self._region.close()

    def _run(self) -> None:
        rest = 0.0
        while not self._done.wait(rest):
            began = time.monotonic()
            try:
                self._draw()
            except OSError:  # the terminal has gone; the main thread will see it too
                return
            rest = max(_FRAME_S, _REST * (time.monotonic() - began))

    def _draw(self) -> None:
        permanent = self._take()
        under_way = self._rendered(self._blocks.rest, fold_code=True)
        live = [*self._space(), *under_way] if under_way else []
        if self._status is not None:
            if live or self._any:
                live.append(_BLANK)
            live.append(self._status_line(self._status))
        self._region.draw(permanent, live)

    def _take(self) -> list[Line]:
        """The lines that are finished with what has come since."""
        with self._lock:
            new, self._new = self._new, []
        lines: list[Line] = []
        for kind, pieces in groupby(new, key=lambda piece: piece[0]):
            if kind != self._kind:
                lines += self._end_of_kind()
                self._kind, self._kind_since = kind, time.monotonic()
            text = "".join(piece for _, piece in pieces)
            if kind == "reasoning" and self._reasoning == "hide":
                continue
            for block in self._blocks.add(text):
                lines += self._block(block)
        return lines

    def _end_of_kind(self) -> list[Line]:
        lines = self._block(self._blocks.finish())
        if self._kind == "reasoning":
            took = time.monotonic() - self._kind_since
            lines += [*self._space(), self._dim(f"(thought for {took:.1f} s)")]
            self._any = True
        self._kind = ""
        return lines

    def _block(self, markdown: str) -> list[Line]:
        drawn = self._rendered(markdown)
        lines = [*self._space(), *drawn] if drawn else []
        self._any = self._any or bool(drawn)
        return lines

    def _rendered(self, markdown: str, *, fold_code: bool = False) -> list[Line]:
        if not markdown.strip():
            return []
        dimmed = self._kind == "reasoning" and self._reasoning == "dim"
        style = "dim" if dimmed else ""
        return render(self._console, markdown, self._width, style, fold_code=fold_code)

    def _space(self) -> list[Line]:
        """What separates a block from the one before."""
        return [_BLANK] if self._any else []

    def _status_line(self, status: Status) -> Line:
        ascii_only = self._console.options.ascii_only
        spinner = _ASCII_SPINNER if ascii_only else _SPINNER
        self._frame += 1
        sign = spinner[self._frame % len(spinner)]
        if self.stopping:
            status = replace(status, activity="stopping")
        text = status.line(self._width - 2, rates=self._rates.values, ascii_only=ascii_only)
        return self._dim(f"{sign} {text}")

    def _dim(self, text: str) -> Line:
        return styled_line(self._console, text[: self._width], "dim")

    @property
    def _width(self) -> int:
        # One less than there is: a row that is full would wrap. With fewer, rich draws nothing.
        return max(self._size()[0] - 1, _LEAST_COLUMNS)
