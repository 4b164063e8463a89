"""What others want done on the scheduler's thread. Guarded by its lock; knows nothing of it."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Calls:
    """Work that waits, in the order in which it came, and those who wait for it."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[], Any], Future[Any]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, work: Callable[[], Any]) -> "Future[Any]":
        """Have something done; what it returns or raises is told."""
        told: Future[Any] = Future()
        self._waiting.append((work, told))
        return told

    def run(self) -> None:
        """Do all of it."""
        while self._waiting:
            work, told = self._waiting.popleft()
            if not told.set_running_or_notify_cancel():
                continue
            try:
                told.set_result(work())
            except Exception as error:
                told.set_exception(error)

    def cancel(self) -> None:
        """Do none of it."""
        while self._waiting:
            self._waiting.popleft()[1].cancel()
