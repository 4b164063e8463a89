"""A constraint that holds only once a model's reasoning has ended.

While it reasons anything goes but the end. What must be written then, before the constraint
begins, is white space at most; gpt-oss has headers of messages, and these are enforced too.
"""

from typing import Literal, Protocol

from moestream.chat.reasoning import HARMONY, Markers
from moestream.grammars.vocabulary import Mask, Vocabulary, is_space

_START = b"<|start|>assistant"
_FINAL = b"<|channel|>final<|message|>"
State = Literal["beginning", "reasoning", "header", "inner"]
_MOST_SPACES = 2
"""Tokens of white space after the reasoning."""


class Inner(Protocol):
    """The constraint that is waiting."""

    def allowed(self) -> Mask:
        """As in ``Constraint``."""

    def accept(self, token: int) -> None:
        """As in ``Constraint``."""

    def restart(self) -> None:
        """Go back to the beginning."""

    @property
    def complete(self) -> bool:
        """Whether it may end here."""


class AfterReasoning:
    """Waits for the end of the reasoning, if there is any, and then is the inner constraint."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        inner: Inner,
        markers: Markers,
        *,
        inside: bool,
        is_answer: bool,
        forbidden: tuple[str, ...] = (),
    ) -> None:
        """Begin.

        Args:
            vocabulary: the model's.
            inner: what holds after the reasoning.
            markers: of the reasoning.
            inside: it has begun.
            is_answer: the inner one is of what the answer says, not of calls.
            forbidden: what would end the reasoning without its marker.
        """
        self._vocabulary = vocabulary
        self._inner = inner
        self._open = markers.open.encode()
        self._close = markers.close.encode()
        self._forbidden = [text.encode() for text in forbidden]
        self._kept = max(map(len, (self._close, *self._forbidden)))
        for text in (self._close, *self._forbidden):
            vocabulary.completing(text, 0, more=True)  # the slow part of it: not between tokens
        harmony = markers == HARMONY
        self._header = _FINAL if harmony and is_answer else b""  # before the inner one begins
        self._start = _START if harmony else b""  # before the header, after reasoning
        self._read = b""  # of what the present state looks for
        self._spaces = 0 if harmony else _MOST_SPACES  # that may come yet
        self._inner_fits = not self._header
        self._state: State = "reasoning" if inside else "beginning"

    @property
    def complete(self) -> bool:
        """Whether it may end here."""
        return self._state == "inner" and self._inner.complete

    def allowed(self) -> Mask:
        """Which ids may come next, (V,).

        Raises:
            RequestError: as ``GrammarConstraint`` does.
        """
        if self._state == "beginning":
            return self._beginning()
        if self._state == "reasoning":
            return self._reasoning()
        if self._state == "header":
            return self._leading_to(self._start + self._header)
        inner = self._inner.allowed()
        return inner | self._vocabulary.white_space if self._may_space else inner

    def accept(self, token: int) -> None:
        """Go on to what may follow ``token``.

        Raises:
            RequestError: as ``GrammarConstraint`` does.
        """
        data = self._vocabulary.bytes[token]
        if self._state == "reasoning":
            self._accept_reasoning(data)
        elif self._state == "header":
            self._read += data
            if self._read == self._start + self._header:
                self._state = "inner"
        elif self._may_space and is_space(data) and not self._inner_takes(token):
            self._spaces -= 1
        elif self._state == "beginning":
            self._accept_beginning(token, data)
        else:
            self._accept_inner(token)

    @property
    def _may_space(self) -> bool:
        return not self._read and self._spaces > 0

    def _reasoning(self) -> Mask:
        vocabulary = self._vocabulary
        overlap = _overlap(self._read, self._close)
        refused = vocabulary.completing(self._close, overlap, more=True)
        for text in self._forbidden:
            refused = refused | vocabulary.completing(text, _overlap(self._read, text), more=False)
        return vocabulary.not_ends & ~refused

    def _beginning(self) -> Mask:
        """The reasoning opens, or there is none, and what comes instead begins."""
        mask = self._leading_to(self._open)
        if self._header:
            mask |= self._leading_to(self._header)
        if self._inner_fits:
            mask |= self._inner.allowed()
        return mask | self._vocabulary.white_space if self._may_space else mask

    def _accept_beginning(self, token: int, data: bytes) -> None:
        """What begins the reasoning, the header or the inner one; it may be several yet."""
        self._read += data
        self._inner_fits = self._inner_takes(token)
        if self._inner_fits:
            self._inner.accept(token)
        if self._read == self._open:
            self._inner.restart()
            self._state, self._read = "reasoning", b""
        elif self._read == self._header or not self._leads_anywhere():
            self._state = "inner"

    def _leads_anywhere(self) -> bool:
        return any(text.startswith(self._read) for text in (self._open, self._header))

    def _accept_inner(self, token: int) -> None:
        self._inner.accept(token)
        self._spaces = 0

    def _inner_takes(self, token: int) -> bool:
        fits = self._inner_fits or self._state == "inner"
        return fits and bool(self._inner.allowed()[token])

    def _accept_reasoning(self, data: bytes) -> None:
        self._read += data
        if self._close not in self._read:
            self._read = self._read[-self._kept :]
            return
        self._read = b""
        self._state = "header" if self._start else "inner"

    def _leading_to(self, text: bytes) -> Mask:
        """Allow what goes on from what was read towards the text."""
        mask = self._vocabulary.mask()
        if text.startswith(self._read):
            rest = text[len(self._read) :]
            for length in range(1, len(rest) + 1):
                mask[list(self._vocabulary.saying(rest[:length]))] = True
        return mask


def _overlap(text: bytes, marker: bytes) -> int:
    """How many bytes at the end of the text may begin the marker."""
    lengths = range(min(len(marker) - 1, len(text)), 0, -1)
    return next((n for n in lengths if marker.startswith(text[-n:])), 0)
