"""Reasoning that a model writes between markers, told from its answer as the text comes.

Owns which markers there are and how a model's are found. Pure: text in, pieces of text out.
"""

from dataclasses import dataclass, replace
from typing import Literal

from moestream.chat.dropped_tags import TagDropper, overlap
from moestream.tokenizer import Tokenizer

Kind = Literal["reasoning", "answer"]


@dataclass(frozen=True, slots=True)
class Markers:
    """What opens a model's reasoning and what closes it.

    ``around``: what the answer may stand between, if there is such a thing. ``may_close``: without
    any, an answer may begin with the end of it. ``specials``: tokens that the markers are made of;
    ``dropped``: what is no part of an answer wherever it stands, the first of which may end the
    reasoning, too.
    """

    open: str
    close: str
    around: tuple[str, str] = ("", "")
    may_close: bool = False
    specials: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def shown(self) -> frozenset[str]:
        """Names of the special tokens that a text must have."""
        return frozenset((self.open, self.close, *self.specials))


MARKERS = (
    Markers("<think>", "</think>"),  # Qwen3, DeepSeek-R1, GLM-4.5 and most others
    Markers("<think:opensource>", "</think:opensource>"),  # Hunyuan 3
    Markers("[THINK]", "[/THINK]"),  # Magistral
    Markers("<seed:think>", "</seed:think>"),  # Seed-OSS
    Markers("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    Markers("◁think▷", "◁/think▷"),  # Kimi
    Markers("<|channel>thought", "<channel|>"),  # Gemma 4
    Markers("<mm:think>", "</mm:think>", may_close=True),  # MiniMax-M3
)
HARMONY = Markers("<|channel|>analysis<|message|>", "<|end|>")
"""gpt-oss: every message has a header, and reasoning is a message of a channel of its own."""
KIMI_K3 = Markers(
    "<|open|>think<|sep|>",
    "<|close|>think<|sep|>",
    specials=("<|open|>", "<|close|>", "<|sep|>"),
    dropped=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
)
"""Whose template puts its tags together from their names."""
AROUND_ANSWERS = (
    ("<answer>", "</answer>"),  # Hunyuan
    ("<response>", "</response>"),  # ERNIE and Granite 3.3
    ("<|START_TEXT|>", "<|END_TEXT|>"),  # North Mini Code
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that can be shown, and what it belongs to."""

    kind: Kind
    text: str


def find_markers(template: str, tokenizer: Tokenizer) -> Markers | None:
    """Return the markers that a model has tokens for or its chat template speaks of, if any."""
    if tokenizer.token_id("<|channel|>") is not None and "<|message|>" in template:
        return HARMONY
    if "'<|open|>' + tag" in template and "open_tag('think')" in template:
        return KIMI_K3
    for markers in MARKERS:
        if tokenizer.token_id(markers.open) is not None or any(
            marker in template for marker in (markers.open, markers.close)
        ):
            if markers.may_close:  # its template has results of tools between tags of that name
                return markers
            around = (pair for pair in AROUND_ANSWERS if pair[0] in template)
            return replace(markers, around=next(around, ("", "")))
    return None


class ReasoningSplitter:
    """Splits text that comes in pieces; a marker may be cut anywhere between them.

    The markers and the answer's tags themselves, and white space beside them, are in no piece.
    Reasoning is looked for at the start alone: what an answer quotes later is the answer's.
    """

    def __init__(
        self,
        markers: Markers | None,
        *,
        inside: bool = False,
        ended_by: tuple[str, ...] = (),
        drop: bool = True,
    ) -> None:
        """Begin.

        Args:
            markers: the model's.
            inside: the prompt has opened the reasoning already, as some templates do.
            ended_by: what ends the reasoning without a marker, and is the answer's.
            drop: take out what is ``dropped``; else who looks for calls does, as they may hold it.
        """
        self._markers = markers
        dropped = markers.dropped if markers is not None else ()
        self._tags = TagDropper(dropped) if dropped and drop else None
        self._ended_by = (*ended_by, *dropped[:1])
        self._headers = markers == HARMONY
        self._around = markers.around if markers is not None else ("", "")  # which may come
        self._close = ""  # the answer's, once it was opened
        self._state: Literal["start", "reasoning", "answer"] = "answer"
        if markers is not None:
            self._state = "reasoning" if inside else "start"
        self._held = ""
        self._blank = True  # nothing but white space of this kind so far

    @property
    def reasoning(self) -> bool:
        """Whether reasoning has begun and not ended."""
        return self._state == "reasoning"

    def add(self, text: str) -> list[Piece]:
        """Return what is sure now."""
        self._held += text
        pieces: list[Piece] = []
        if self._state == "start":
            self._start()
        while self.reasoning:
            pieces += self._reason()
            if not self._next_message():
                break
        if self._state == "answer":
            pieces += self._answer()
        return pieces

    def finish(self) -> list[Piece]:
        """Return what was held back: no marker can come of it any more."""
        text, self._held = self._held, ""
        if self.reasoning:
            return self._piece("reasoning", text.rstrip())
        if self._tags is not None:
            text = self._tags.add(text) + self._tags.finish()
        return self._piece("answer", text)

    def _start(self) -> None:
        assert self._markers is not None
        if self._headers:
            self._read_header()
            return
        text, opener = self._held.lstrip(), self._markers.open
        if text.startswith(opener):
            self._state, self._held = "reasoning", text[len(opener) :]
        elif self._markers.may_close and text.startswith(self._markers.close):
            self._state, self._held = "answer", text[len(self._markers.close) :]
        elif not any(marker.startswith(text) for marker in self._openers()):
            self._state = "answer"

    def _openers(self) -> tuple[str, ...]:
        """What the text may begin with."""
        assert self._markers is not None
        closing = (self._markers.close,) if self._markers.may_close else ()
        return (self._markers.open, *closing)

    def _next_message(self) -> bool:
        """Whether another message follows the reasoning, as harmony has it; if so, begin it."""
        if self._state != "start":
            return False
        self._start()
        return True

    def _read_header(self) -> None:
        """Of a message in harmony's form, ``<|start|>assistant<|channel|>NAME<|message|>``.

        A channel other than ``analysis`` is the answer's, and so is text without a header.
        """
        text = self._held.lstrip()
        header, end, rest = text.partition("<|message|>")
        if end:
            self._state = "reasoning" if "<|channel|>analysis" in header else "answer"
            self._held, self._blank = rest, True
        elif not any(
            text.startswith(opener) or opener.startswith(text)
            for opener in ("<|start|>", "<|channel|>")
        ):
            self._state = "answer"

    def _reason(self) -> list[Piece]:
        assert self._markers is not None
        closers = (self._markers.close, *self._ended_by)
        found = [(at, text) for text in closers if (at := self._held.find(text)) >= 0]
        if found:
            at, closer = min(found)
            pieces = self._piece("reasoning", self._held[:at].rstrip())
            kept = at if closer in self._ended_by else at + len(closer)
            self._state, self._held, self._blank = "answer", self._held[kept:], True
            if self._headers:
                self._state = "start"
            return pieces
        return self._piece("reasoning", self._take_sure(*closers))

    def _answer(self) -> list[Piece]:
        if self._tags is not None:
            text, self._held = self._held, ""
            return self._piece("answer", self._tags.add(text))
        if self._around[0]:
            text, (opener, closer) = self._held.lstrip(), self._around
            if text != opener and opener.startswith(text):
                return []
            if text.startswith(opener):
                self._held, self._close = text[len(opener) :], closer
            self._around = ("", "")
        if not self._close:
            text, self._held = self._held, ""
            return self._piece("answer", text)
        before, closer, after = self._held.partition(self._close)
        if closer:
            self._held = self._close = ""
            return self._piece("answer", before.rstrip() + after)
        return self._piece("answer", self._take_sure(self._close))

    def _take_sure(self, *markers: str) -> str:
        """Take what is held, but for what may begin a marker and white space before it."""
        kept = len(self._held) - max(overlap(self._held, marker) for marker in markers)
        sure = self._held[:kept].rstrip()
        self._held = self._held[len(sure) :]
        return sure

    def _piece(self, kind: Kind, text: str) -> list[Piece]:
        """Drop white space before the first word, where a marker may have left it."""
        if self._blank and self._markers is not None:
            text = text.lstrip()
        self._blank = self._blank and not text
        return [Piece(kind, text)] if text else []
