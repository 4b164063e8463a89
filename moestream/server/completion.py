"""One sequence's tokens as they become an answer: text, reasoning, tool calls, an end.

Owns what an answer holds and why it ended. Knows no API: those tell it in their own words.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from moestream.chat.output import Output, OutputParser, OutputStream
from moestream.chat.reasoning import Markers, Piece
from moestream.chat.tool_calls import CallArguments, CallBegin, CallEnd, ToolFormat
from moestream.errors import MoestreamError
from moestream.server.identifiers import random_id
from moestream.server.jobs import Ended, Event, Failed, Job, Made
from moestream.server.progress import Progress
from moestream.tokenizer import Tokenizer

Finish = Literal["eos", "word", "limit"]
"""Why an answer ended, in llama-server's words: an end token, a stop string, anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One sequence that a request asks for, and how its text is to be read."""

    job: Job
    stop: tuple[str, ...] = ()
    markers: Markers | None = None
    """Of the reasoning; None leaves it in the text."""
    inside: bool = False
    """Whether the prompt has opened the reasoning already."""
    tool_format: ToolFormat | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    """Those whose calls are looked for."""
    parallel_calls: bool = True
    """Whether there may be several; else the answer ends after the first."""
    prompt: str = ""


@dataclass(slots=True)
class Call:
    """A tool call; ``whole`` once it has ended and is one, ``cut`` if the answer ended in it."""

    id: str
    name: str
    arguments: str = ""
    whole: bool = False
    cut: bool = False


@dataclass(slots=True)
class Answer:
    """What came of a task so far."""

    task: Task
    tokenizer: Tokenizer
    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    """All tokens up to a stop string's last."""
    finish: Finish | None = None
    """None while more is to come."""
    context_full: bool = False
    error: MoestreamError | None = None
    progress: Progress = field(default_factory=Progress)
    """Of its prompt."""
    _stream: OutputStream = field(init=False)

    def __post_init__(self) -> None:
        task = self.task
        parser = OutputParser(task.tool_format, task.markers, task.tools, inside=task.inside)
        self._stream = OutputStream(self.tokenizer, parser, task.stop)

    @property
    def stop_word(self) -> str:
        """The stop string that ended it, or nothing."""
        return self._stream.stopped or ""

    @property
    def told_calls(self) -> list[Call]:
        """Calls that are to be told: those that are whole, and one that the end has cut."""
        return [call for call in self.calls if call.whole or call.cut]

    @property
    def calls_tools(self) -> bool:
        """Whether it ended to have tools called."""
        told = self.told_calls
        return self.finish != "limit" and bool(told) and not told[-1].cut

    @property
    def unsaid(self) -> int:
        """How many of the last tokens are nothing but part of the stop string."""
        stop, tail = self.stop_word.encode(), b""
        for count, each in enumerate(reversed(self.made) if stop else (), 1):
            tail = self.tokenizer.token_bytes(each.token) + tail
            if stop in tail:
                return count - (not tail.startswith(stop))
        return 0

    @property
    def said(self) -> list[Made]:
        """The tokens that its text is made of, without those of the stop string."""
        return self.made[: len(self.made) - self.unsaid]

    def hear(self, events: Sequence[Event]) -> list[Output]:
        """Return what is new of the output; nothing once it has ended."""
        new: list[Output] = []
        for event in events:
            if self.finish is None and self.error is None:
                new += self._hear(event)
        return new

    def _hear(self, event: Event) -> Iterator[Output]:
        match event:
            case Made(token=token):
                self.made.append(event)
                yield from self._kept(self._stream.add(token))
                if self._stream.stopped is not None and self.finish is None:
                    self.finish = "word"
                    yield from self._kept(self._stream.finish(), last=True)
            case Ended(reason=reason):
                self.finish = "eos" if reason == "end" else "limit"
                self.context_full = reason == "context"
                yield from self._kept(self._stream.finish(), last=True)
            case Failed(error=error):
                self.error = error

    def _kept(self, outputs: Sequence[Output], *, last: bool = False) -> Iterator[Output]:
        """Keep what comes, and pass it on; no more than one call where there may be one."""
        for output in outputs:
            match output:
                case Piece("answer", text):
                    self.content += text
                case Piece(_, text):
                    self.reasoning += text
                case CallBegin(_, name, id):
                    self.calls.append(Call(id or random_id("call_"), name))
                case CallArguments(index, text):
                    self.calls[index].arguments += text
                case CallEnd(index, whole):
                    self.calls[index].whole, self.calls[index].cut = whole, last and not whole
            yield output
            if isinstance(output, CallEnd) and output.whole and not self.task.parallel_calls:
                self.finish = self.finish or "eos"
                return
