"""What a model says, told apart as it comes: reasoning, answer, tool calls.

Owns which special tokens are part of the text. Reasoning is ``reasoning``'s, calls are
``tool_calls``'.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from moestream.chat.dropped_tags import TagDropper
from moestream.chat.reasoning import HARMONY, Kind, Markers, Piece, ReasoningSplitter
from moestream.chat.tool_calls import CallArguments, CallBegin, CallEvent, ToolFormat
from moestream.chat.tool_calls.finder import CallFinder
from moestream.chat.tool_calls.formats import HARMONY_CALLS, HarmonyFormat
from moestream.chat.tool_calls.harmony import HarmonyReader
from moestream.chat.tool_calls.schemas import Tools
from moestream.tokenizer import Tokenizer
from moestream.tokenizer.text_stream import TextStream

Output = Piece | CallEvent
"""A piece of reasoning or answer, or something of a tool call."""


class OutputParser:
    """Takes the text of an output in pieces, cut anywhere; tells what is sure.

    The text must have the special tokens named in ``shown``, and no other hidden ones:
    ``OutputStream`` makes it of token ids.
    """

    def __init__(
        self,
        format: ToolFormat | None,
        markers: Markers | None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        inside: bool = False,
    ) -> None:
        """Without ``tools`` no calls are looked for; ``inside`` as in ``ReasoningSplitter``."""
        self._out: list[Output] = []
        self.shown = markers.shown if markers else frozenset()
        """Names of the special tokens that the text must have, even where they are hidden."""
        self._harmony: HarmonyReader | None = None
        self._finder: CallFinder | None = None
        self._tags: TagDropper | None = None
        if markers == HARMONY:
            self.shown |= frozenset(HARMONY_CALLS.specials)
            self._harmony = HarmonyReader(self._say, self._out.append, calls=bool(tools))
            if inside:
                self._harmony.begin_reasoning()
        ended_by: tuple[str, ...] = ()
        if tools and format is not None and not isinstance(format, HarmonyFormat):
            self.shown |= frozenset(format.specials)
            self._finder = CallFinder(format, Tools(tools), self._answer, self._call)
            ended_by = format.openers if format.ends_reasoning else ()
            if markers is not None and markers.dropped:
                self._tags = TagDropper(markers.dropped)
        self._splitter = ReasoningSplitter(
            markers, inside=inside, ended_by=ended_by, drop=self._finder is None
        )

    def add(self, text: str) -> list[Output]:
        """Return what is sure now."""
        if self._harmony is not None:
            self._harmony.add(text)
        else:
            self._take(self._splitter.add(text))
        return self._told()

    def finish(self) -> list[Output]:
        """Return what was held back; calls that are open are closed."""
        if self._harmony is not None:
            self._harmony.finish()
        else:
            self._take(self._splitter.finish())
        if self._finder is not None:
            self._finder.finish()
            self._end_answer()
        return self._told()

    def _take(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if piece.kind == "answer" and self._finder is not None:
                self._finder.add(piece.text)
            else:
                self._out.append(piece)

    def _say(self, kind: Kind, text: str) -> None:
        self._out.append(Piece(kind, text))

    def _answer(self, text: str) -> None:
        """Take what is in no call."""
        if self._tags is not None:
            text = self._tags.add(text)
        if text:
            self._say("answer", text)

    def _call(self, event: CallEvent) -> None:
        if isinstance(event, CallBegin):
            self._end_answer()
        self._out.append(event)

    def _end_answer(self) -> None:
        if self._tags is not None and (text := self._tags.finish()):
            self._say("answer", text)

    def _told(self) -> list[Output]:
        """What there is to tell, with what belongs together joined."""
        told: list[Output] = []
        for new in self._out:
            last = told[-1] if told else None
            if isinstance(new, Piece) and isinstance(last, Piece) and new.kind == last.kind:
                told[-1] = Piece(new.kind, last.text + new.text)
            elif isinstance(new, CallArguments) and isinstance(last, CallArguments):
                told[-1] = CallArguments(new.index, last.text + new.text)
            else:
                told.append(new)
        self._out.clear()
        return told


class OutputStream:
    """Takes the ids of an output one by one, up to the first stop string."""

    def __init__(self, tokenizer: Tokenizer, parser: OutputParser, stop: Sequence[str] = ()):
        self._tokenizer = tokenizer
        self._parser = parser
        self._stream = TextStream(tokenizer, stop)
        ids = ((tokenizer.token_id(name), name) for name in parser.shown)
        self._shown = {id: name for id, name in ids if id is not None and tokenizer.is_hidden(id)}

    @property
    def stopped(self) -> str | None:
        """The stop string that was found; nothing after it is told."""
        return self._stream.stopped

    def add(self, token: int) -> list[Output]:
        """Return what is sure now.

        Raises:
            ValueError: the id is outside the vocabulary.
        """
        return self._parser.add(self._text(token))

    def finish(self, *, cut: bool = True) -> list[Output]:
        """Return what was held back; of half a character, nothing, if the limit has ``cut`` it."""
        return [*self._parser.add(self._stream.finish(cut=cut)), *self._parser.finish()]

    def _text(self, token: int) -> str:
        name = self._shown.get(token)
        if name is None or self.stopped is not None:
            return self._stream.add(token)
        return self._stream.finish() + name
