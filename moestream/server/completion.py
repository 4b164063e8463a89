"""One sequence's tokens as they become an answer: text, reasoning, stop strings, an end.

Owns what an answer holds and why it ended. Knows no API: those tell it in their own words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from moestream.chat.reasoning import Markers, Piece, ReasoningSplitter
from moestream.errors import MoestreamError
from moestream.server.jobs import Ended, Event, Failed, Job, Made
from moestream.tokenizer import Tokenizer
from moestream.tokenizer.text_stream import TextStream

Finish = Literal["eos", "word", "limit"]
"""Why an answer ended, in llama-server's words: an end token, a stop string, anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One sequence that a request asks for, and how its text is to be read."""

    job: Job
    stop: tuple[str, ...] = ()
    markers: Markers | None = None
    """Of the reasoning; None leaves all of the text as it is."""
    inside: bool = False
    """Whether the prompt has opened the reasoning already."""
    prompt: str = ""


@dataclass(slots=True)
class Answer:
    """What came of a task so far."""

    task: Task
    tokenizer: Tokenizer
    content: str = ""
    reasoning: str = ""
    made: list[Made] = field(default_factory=list)
    """All tokens up to a stop string's last."""
    finish: Finish | None = None
    """None while more is to come."""
    context_full: bool = False
    error: MoestreamError | None = None
    _stream: TextStream = field(init=False)
    _splitter: ReasoningSplitter = field(init=False)

    def __post_init__(self) -> None:
        self._stream = TextStream(self.tokenizer, self.task.stop)
        self._splitter = ReasoningSplitter(self.task.markers, inside=self.task.inside)

    @property
    def stop_word(self) -> str:
        """The stop string that ended it, or nothing."""
        return self._stream.stopped or ""

    def hear(self, events: Sequence[Event]) -> list[Piece]:
        """Return what is new of the text; nothing once it has ended."""
        pieces: list[Piece] = []
        for event in events:
            if self.finish is None and self.error is None:
                pieces += self._hear(event)
        for piece in pieces:
            if piece.kind == "answer":
                self.content += piece.text
            else:
                self.reasoning += piece.text
        return pieces

    def _hear(self, event: Event) -> Iterator[Piece]:
        match event:
            case Made(token=token):
                self.made.append(event)
                yield from self._splitter.add(self._text(token))
                if self._stream.stopped is not None:
                    self.finish = "word"
                    yield from self._splitter.finish()
            case Ended(reason=reason):
                yield from self._splitter.add(self._stream.finish())
                yield from self._splitter.finish()
                self.finish = "eos" if reason == "end" else "limit"
                self.context_full = reason == "context"
            case Failed(error=error):
                self.error = error

    def _text(self, token: int) -> str:
        """The token's text; a marker shows, though it may be a token that others do not see."""
        markers = self.task.markers
        if markers is not None and self.tokenizer.is_hidden(token):
            name = self.tokenizer.token_bytes(token).decode(errors="replace")
            if name in (markers.open, markers.close):
                return self._stream.finish() + name
        return self._stream.add(token)
