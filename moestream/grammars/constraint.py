"""A grammar that a sequence obeys token by token: which may come next, and going on.

Fulfils ``moestream.engine.sampling.Constraint``. What the grammar is, is the caller's.
"""

import numpy as np
from llguidance import LLMatcher

from moestream.chat.reasoning import Markers
from moestream.errors import RequestError
from moestream.grammars.reasoning import AfterReasoning
from moestream.grammars.refusals import plain
from moestream.grammars.vocabulary import Mask, Vocabulary

_MOST_DIGITS = 20


class GrammarConstraint:
    """One sequence's place in a grammar."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        matcher: LLMatcher,
        *,
        param: str,
        is_json: bool = True,
        is_answer: bool = True,
        ends_reasoning: tuple[str, ...] = (),
    ) -> None:
        """Not for callers: ``Grammars`` makes them.

        Args:
            vocabulary: the model's.
            matcher: at the grammar's beginning.
            param: the request's field that it stands in.
            is_json: its numbers need not have more digits than a number can hold.
            is_answer: the grammar is of what the answer says, not of the calls that a model writes.
            ends_reasoning: what a reader of the output takes for the end of the reasoning.
        """
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._param = param
        self._is_json = is_json
        self._digits = 0  # that were said last
        self._is_answer = is_answer
        self._ends_reasoning = ends_reasoning
        self._mask: Mask | None = None
        self._ended = False

    def another(self) -> "GrammarConstraint":
        """One of the same grammar, at its beginning."""
        matcher = self._matcher.deep_copy()
        matcher.reset()
        return GrammarConstraint(
            self._vocabulary,
            matcher,
            param=self._param,
            is_json=self._is_json,
            is_answer=self._is_answer,
            ends_reasoning=self._ends_reasoning,
        )

    def after_reasoning(
        self, markers: Markers | None, *, inside: bool
    ) -> "GrammarConstraint | AfterReasoning":
        """Begin only once the reasoning ended, if the model reasons; ``inside``: it has begun."""
        if markers is None:
            return self
        return AfterReasoning(
            self._vocabulary,
            self,
            markers,
            inside=inside,
            is_answer=self._is_answer,
            forbidden=self._ends_reasoning,
        )

    @property
    def complete(self) -> bool:
        """Whether it may end here."""
        return self._ended or self._matcher.is_accepting()

    def allowed(self) -> Mask:
        """Which ids may come next, (V,); those that end the answer exactly where it may end.

        Raises:
            RequestError: the grammar takes too long, or leads nowhere.
        """
        if self._mask is None:
            self._mask = self._compute()
        return self._mask

    def accept(self, token: int) -> None:
        """Go on to what may follow ``token``.

        Raises:
            RequestError: it may not come here, or the grammar takes too long.
        """
        if token in self._vocabulary.ends and self.complete:
            self._ended = True
        elif self._ended or not self._matcher.consume_token(token):
            raise self._stuck()
        self._mask = None
        data = self._vocabulary.bytes[token]
        digits = len(data) - len(data.rstrip(b"0123456789"))
        self._digits = digits + (self._digits if digits == len(data) else 0)

    def restart(self) -> None:
        """Go back to the beginning."""
        self._matcher.reset()
        self._mask, self._ended, self._digits = None, False, 0

    def _compute(self) -> Mask:
        size, ends = self._vocabulary.size, self._vocabulary.end_ids
        if self._ended:
            return self._vocabulary.mask(ends)
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise self._stuck()
        mask = np.unpackbits(bits, count=size, bitorder="little").view(np.bool_)
        mask[ends] = self._matcher.is_accepting()
        if self._is_json and self._digits >= _MOST_DIGITS:
            mask = self._without_digits(mask)
        if not mask.any():
            raise RequestError(
                "the grammar asks for text that this model has no tokens for", self._param
            )
        return mask

    def _without_digits(self, mask: Mask) -> Mask:
        """End a number, if it is one and may end: JSON has numbers without end."""
        others = mask & ~self._vocabulary.digits
        in_text = (mask & self._vocabulary.letters).any()
        return others if others.any() and not in_text else mask

    def _stuck(self) -> RequestError:
        reason = plain(self._matcher.get_error()) or "the token does not fit"
        return RequestError(f"the grammar cannot go on: {reason}", self._param)
