"""Signals that ask for an end: Ctrl-C, SIGTERM and SIGHUP.

While an answer is made they are wishes, heard where it is sound to stop: between two layers of a
prompt's pass and between two tokens of an answer, so that what is recorded and saved is whole.
Anywhere else they are exceptions. Owns both; knows no screen.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ENDS = (signal.SIGTERM, signal.SIGHUP)
_LATE_S = 1.0


_doubts: list[Callable[[], bool]] = []


class Terminated(KeyboardInterrupt):
    """A signal ended the program as Ctrl-C would; ``signum`` is which."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def terminate_as_interrupt() -> None:
    """From now on, SIGTERM and SIGHUP raise ``Terminated``, as Ctrl-C raises its exception.

    Those that are ignored, as below ``nohup``, still are.
    """
    for each in _ENDS:
        if signal.getsignal(each) is signal.SIG_DFL:
            signal.signal(each, _terminate)


def doubt_ends(is_told: Callable[[], bool]) -> None:
    """Ask this at each SIGTERM and SIGHUP: whether what made it come will be told by itself.

    They are then left: whoever finds it ends the program, and says more than that it was ended.
    """
    _doubts.append(is_told)


def _is_told(signum: int) -> bool:
    return signum in _ENDS and any(is_told() for is_told in _doubts)


def _terminate(signum: int, frame: FrameType | None) -> None:
    if _is_told(signum):
        return
    _ignore_ends()
    raise Terminated(signum)


def _ignore_ends() -> None:
    """A closed terminal is told of twice, and the second must not break off what is saved."""
    for each in _ENDS:
        signal.signal(each, signal.SIG_IGN)


class Interrupt:
    """Which signal asked for an end, if one did."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._may_wait = False

    @property
    def wanted(self) -> bool:
        """Whether one did."""
        return self.signum is not None

    def is_wanted(self) -> bool:
        """To be asked where it is safe to stop."""
        return self.wanted

    def ends_program(self) -> bool:
        """Whether it was more than Ctrl-C, which may be meant for an answer alone."""
        return self.signum in _ENDS

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """For what may wait for ever, such as a write into a full pipe: a signal breaks it off.

        Raises:
            KeyboardInterrupt: on entry too, for a signal heard before: no other may come.
        """
        self._may_wait = True
        try:
            if self.wanted:
                raise self.error()
            yield
        finally:
            self._may_wait = False

    def error(self) -> KeyboardInterrupt:
        """What the signal would have raised."""
        return Terminated(self.signum) if self.signum in _ENDS else KeyboardInterrupt()

    def hear(self, signum: int) -> None:
        """Take note of a signal; one that ends the program counts more than Ctrl-C.

        Raises:
            KeyboardInterrupt: within ``waiting``.
        """
        if not self.ends_program():
            self.signum = signum
        if self._may_wait:
            self._may_wait = False
            raise self.error()


class Late:
    """Ctrl-C pressed over and over: what comes just after an answer was meant for that."""

    def __init__(self) -> None:
        self._until = float("-inf")

    def begin(self) -> None:
        """An answer was stopped just now."""
        self._until = time.monotonic() + _LATE_S

    def end(self) -> None:
        """Something else was done: what comes now is meant anew."""
        self._until = float("-inf")

    def covers(self) -> bool:
        """Whether a Ctrl-C of now was meant for it; if so, the next may be too."""
        late = time.monotonic() < self._until
        if late:
            self.begin()
        return late


@contextmanager
def interruptible(tell: Callable[[], None] = lambda: None) -> Iterator[Interrupt]:
    """Take signals as wishes, however often they come.

    ``tell`` is called at once at the first, whatever else goes on: it must not lock or print.
    """
    interrupt = Interrupt()

    def handle(signum: int, frame: FrameType | None) -> None:
        if _is_told(signum):
            return
        first = not interrupt.wanted
        interrupt.hear(signum)
        if first:
            tell()

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, *_ENDS)}
    taken = [each for each, handler in before.items() if handler is not signal.SIG_IGN]
    for each in taken:
        signal.signal(each, handle)
    try:
        yield interrupt
    finally:
        ends = interrupt.ends_program()
        if ends:
            _ignore_ends()  # first: the handlers of before would raise at another
        for each in taken:
            if not (ends and each in _ENDS):
                signal.signal(each, before[each])
