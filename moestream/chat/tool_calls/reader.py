"""What readers of an output have in common: a coroutine that reads it as it comes."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from moestream.chat.tool_calls.calls import Calls
from moestream.chat.tool_calls.events import CallEnd, CallEvent
from moestream.chat.tool_calls.text import Reading, Text


class Reader(ABC):
    """Takes text in pieces; tells the events of its calls, and what else its kind tells."""

    def __init__(self, call: Callable[[CallEvent], None]) -> None:
        self._call = call
        self._text = Text()
        self._calls = Calls(self._event)
        self._reading = self._read()

    @abstractmethod
    def _read(self) -> Reading[None]:
        """Read all of it."""

    def add(self, text: str) -> None:
        """Tell what is sure now."""
        self._text.add(text)
        next(self._reading, None)

    def finish(self) -> None:
        """Tell what is left: no more will come."""
        self._text.ended = True
        next(self._reading, None)

    def _event(self, event: CallEvent) -> None:
        self._call(event)
        if isinstance(event, CallEnd) and event.whole:
            self._text.mark()
