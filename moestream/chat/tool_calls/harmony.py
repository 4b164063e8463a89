"""gpt-oss's output: messages with headers, of which some are reasoning and some are calls.

A header has a channel and may have a recipient: ``to=functions.NAME`` is a call, whatever the
channel. What goes to anyone else is text of the answer, with its header: nobody here can run it.
"""

import re
from collections.abc import Callable
from typing import Literal

from moestream.chat.tool_calls.events import CallEvent
from moestream.chat.tool_calls.reader import Reader
from moestream.chat.tool_calls.text import Malformed, Reading

_START, _CHANNEL, _MESSAGE, _END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
_OPENERS = (_START, _CHANNEL, " to=", _MESSAGE)
_HEADER = re.compile(
    r"(?:assistant)?(?:<\|channel\|>(?P<channel>analysis|commentary|final)|\s*to=(?P<to>[\w.:/$-]+)"
    r"|\s*<\|constrain\|>\w+|\s+\w+)*\s*"
)
_LONGEST_HEADER = 400
Say = Callable[[Literal["reasoning", "answer"], str], None]


class HarmonyReader(Reader):
    """Takes an output's text in pieces; tells its reasoning, its answer and its calls."""

    def __init__(self, say: Say, call: Callable[[CallEvent], None], *, calls: bool) -> None:
        """``calls``: whether the model may call functions; else they are as any recipient."""
        self._say = say
        self._may_call = calls
        super().__init__(call)

    def begin_reasoning(self) -> None:
        """Go on within a message of reasoning, which the prompt has opened."""
        self._reading = self._read(inside=True)

    def _read(self, *, inside: bool = False) -> Reading[None]:
        text = self._text
        if inside:
            yield from self._copy("reasoning")
        while (yield from text.peek()):
            text.mark()
            try:
                yield from self._read_message()
            except Malformed:
                yield from self._give_up()

    def _read_message(self) -> Reading[None]:
        text = self._text
        opener = yield from text.expect(*_OPENERS)
        header = "" if opener == _MESSAGE else opener
        if opener != _MESSAGE:
            rest, _ = yield from text.until(_MESSAGE, limit=_LONGEST_HEADER)
            header = (header + rest).removeprefix(_START)
        found = _HEADER.fullmatch(header)
        if found is None:
            raise Malformed
        to = found["to"] or "assistant"
        if to.startswith("functions.") and self._may_call:
            yield from self._read_call(to.removeprefix("functions."))
        elif to == "assistant":
            kind: Literal["reasoning", "answer"]
            kind = "reasoning" if found["channel"] == "analysis" else "answer"
            yield from self._copy(kind)
        else:
            raise Malformed

    def _read_call(self, name: str) -> Reading[None]:
        text = self._text
        self._calls.begin(name)
        yield from text.space()
        yield from self._calls.copy_object(text)
        self._calls.end()
        yield from text.space()
        yield from text.match(_END, "<|call|>")

    def _copy(self, kind: Literal["reasoning", "answer"]) -> Reading[None]:
        while True:
            part, _ = yield from self._text.some(_END)
            if not part:
                return
            self._say(kind, part)

    def _give_up(self) -> Reading[None]:
        """Tell what is no message, and the rest up to the next, as it is."""
        text, calls = self._text, self._calls
        if calls.open:
            cut = text.ended
            calls.end(whole=False)
            if cut:
                text.mark()
        if text.read:
            self._say("answer", text.read)
        yield from self._copy("answer")
