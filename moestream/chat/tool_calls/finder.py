"""Tool calls found in an answer as it comes; all else stays text.

Nothing that was said is lost: what is no call after all is text of the answer, its markers too.
"""

from collections.abc import Callable

from moestream.chat.tool_calls.events import CallBegin, CallEnd, CallEvent
from moestream.chat.tool_calls.formats import MarkedFormat
from moestream.chat.tool_calls.reader import Reader
from moestream.chat.tool_calls.schemas import Tools
from moestream.chat.tool_calls.text import SPACE, Malformed, Reading


class CallFinder(Reader):
    """Takes an answer's text in pieces; tells its text and its calls.

    White space beside calls is told to nobody.
    """

    def __init__(
        self,
        format: MarkedFormat,
        tools: Tools,
        answer: Callable[[str], None],
        call: Callable[[CallEvent], None],
    ) -> None:
        self._format = format
        self._tools = tools
        self._answer = answer
        self._space = ""  # after what was told of the answer
        self._called = self._after_call = False
        super().__init__(call)

    def finish(self) -> None:
        """Tell what is left: no more will come."""
        super().finish()
        if not self._called and self._space:
            self._answer(self._space)

    def _read(self) -> Reading[None]:
        text = self._text
        while True:
            text.mark()
            part, opener = yield from text.some(*self._format.openers)
            if opener is not None:
                yield from self._read_calls(opener)
            elif part:
                self._say(part)
            else:
                return

    def _read_calls(self, opener: str) -> Reading[None]:
        text, calls = self._text, self._calls
        try:
            yield from self._format.read(text, opener, calls, self._tools)
        except Malformed:
            if not calls.open:
                text.back(len(opener) if text.read.startswith(opener) else 0)
            elif text.ended:  # cut off
                text.mark()
            if calls.open:
                calls.end(whole=False)
            self._say(text.read)

    def _event(self, event: CallEvent) -> None:
        if isinstance(event, CallBegin):
            self._space, self._called = "", True
        super()._event(event)
        if isinstance(event, CallEnd) and event.whole:
            self._after_call = True

    def _say(self, text: str) -> None:
        if self._after_call:
            text = text.lstrip(SPACE)
        said = text.rstrip(SPACE)
        if said:
            self._answer(self._space + said)
            self._space, self._after_call = "", False
        self._space += text[len(said) :]
