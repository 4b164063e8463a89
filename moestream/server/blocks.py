"""An answer as blocks, one after the other: reasoning, text, tool calls.

Owns where a block begins and ends as an output comes. Two APIs tell answers so, each in its own
words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from moestream.chat.output import Output
from moestream.chat.reasoning import Piece
from moestream.chat.tool_calls import CallArguments, CallBegin, CallEnd
from moestream.server.completion import Answer, Call

Kind = Literal["reasoning", "answer", "call"]


@dataclass(eq=False, slots=True)
class Block:
    """One of them, with its text so far; a call's text is its arguments."""

    index: int
    kind: Kind
    call: Call | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A block has begun, and is empty; has ``text`` more; or has ended."""

    what: Literal["begun", "more", "ended"]
    block: Block
    text: str = ""


class Blocks:
    """The blocks of one answer as they come."""

    def __init__(self) -> None:
        self._open: Block | None = None
        self._count = 0

    def hear(self, answer: Answer, new: Sequence[Output]) -> Iterator[Event]:
        """What becomes of them with a new part of the output."""
        for output in new:
            match output:
                case Piece(kind, text):
                    yield from self._in(kind)
                    yield from self._more(text)
                case CallBegin(number):
                    yield from self.end()
                    yield self._begin("call", answer.calls[number])
                case CallArguments(_, text):
                    yield from self._more(text)
                case CallEnd():
                    yield from self.end()

    def end(self) -> Iterator[Event]:
        """Close the one that is open."""
        if self._open is not None:
            yield Event("ended", self._open)
            self._open = None

    def _in(self, kind: Kind) -> Iterator[Event]:
        if self._open is None or self._open.kind != kind:
            yield from self.end()
            yield self._begin(kind)

    def _begin(self, kind: Kind, call: Call | None = None) -> Event:
        self._open = Block(self._count, kind, call)
        self._count += 1
        return Event("begun", self._open)

    def _more(self, text: str) -> Iterator[Event]:
        if text and self._open is not None:
            self._open.text += text
            yield Event("more", self._open, text)


def blocks_of(answer: Answer) -> list[Block]:
    """Those of a whole answer, one of each kind of text."""
    found: list[tuple[Kind, Call | None, str]] = []
    if answer.reasoning:
        found.append(("reasoning", None, answer.reasoning))
    if answer.content:
        found.append(("answer", None, answer.content))
    found += [("call", call, call.arguments) for call in answer.told_calls]
    return [Block(index, *each) for index, each in enumerate(found)]
