"""Ctrl-C while an answer is made: asked for once it is a wish, twice it is an order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.wanted = False

    def is_wanted(self) -> bool:
        """To be asked where it is safe to stop."""
        return self.wanted


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Take Ctrl-C as a wish, so that a pass through the model is never cut in the middle.

    Raises:
        KeyboardInterrupt: it was pressed again before the wish was heard.
    """
    interrupt = Interrupt()

    def handle(signum: int, frame: FrameType | None) -> None:
        if interrupt.wanted:
            raise KeyboardInterrupt
        interrupt.wanted = True

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
