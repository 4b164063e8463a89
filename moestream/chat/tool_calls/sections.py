"""What formats have in common whose calls have markers of their own, within those around all."""

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass

from moestream.chat.tool_calls.calls import Calls
from moestream.chat.tool_calls.schemas import Tools
from moestream.chat.tool_calls.text import Reading, Text


@dataclass(frozen=True, slots=True)
class Sections(ABC):
    """``open``, calls, ``close``; a call begins with ``call_open``, if that is not empty."""

    name: str
    _: KW_ONLY
    open: str = ""
    close: str = ""
    call_open: str = ""
    tokens: tuple[str, ...] = ()
    """Special tokens that are a part of the markers."""
    ends_reasoning: bool = False
    """Calls may come with the reasoning still open."""

    @property
    def openers(self) -> tuple[str, ...]:
        """What a call may begin with; models forget what is around it."""
        return tuple(filter(None, (self.open, self.call_open)))

    def read(self, text: Text, opener: str, calls: Calls, tools: Tools) -> Reading[None]:
        """Read what follows the opener.

        Raises:
            Malformed: it is no call.
        """
        if self.call_open and opener != self.call_open:
            yield from text.space()
            yield from text.expect(self.call_open)
        ends = [*filter(None, (self.close, self.call_open))]
        while True:
            yield from self.read_call(text, calls, tools)
            yield from text.space()
            if not ends or (yield from text.match(*ends)) != self.call_open:
                return

    @abstractmethod
    def read_call(self, text: Text, calls: Calls, tools: Tools) -> Reading[None]:
        """Read one, from behind its ``call_open`` on."""
