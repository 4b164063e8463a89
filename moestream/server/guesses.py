"""What is guessed behind the token of a sequence that writes alone, and what comes of it.

Several sequences that write fill a pass as guesses would, so they are run as they are. Owns which
guesses stay, and that nothing of others does. What guesses is ``engine.drafts``'s; how it is run,
``passes``'s.
"""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.engine.drafts import Drafting, rows_of
from moestream.layers.moe import RouteObserver, RoutingEvent
from moestream.server.sequence import SequenceRun, State


class Guesses:
    """Those of one pass; there may be none, and then the time is noted that it takes so."""

    def __init__(self, sequence: SequenceRun, drafting: Drafting, tokens: Sequence[int]) -> None:
        self.tokens = tokens
        self.events: list[RoutingEvent] = []
        """What routers decided, for observers to hear of what stays."""
        self.mark = len(sequence.tokens) if tokens else 0
        """The length that is true whatever comes of them."""
        self._sequence, self._drafting = sequence, drafting
        self._again = sequence.pending - 1
        """Tokens before the last one, which are run again."""
        self._started = time.perf_counter()
        self._took_s = 0.0

    @classmethod
    def of(cls, writing: Sequence[SequenceRun]) -> "Guesses | None":
        """Guess for the only one that writes; None where nothing guesses, or others write too."""
        if len(writing) != 1 or (drafting := writing[0].drafting) is None:
            return None
        (sequence,), most = writing, writing[0].room - 1
        *before, last = sequence.tokens
        tokens = drafting.guess(before, last, most) if most > 0 else []
        return cls(sequence, drafting, tokens)

    @property
    def rows(self) -> int:
        """Tokens of the pass."""
        return self._again + 1 + len(self.tokens)

    @property
    def first_row(self) -> int:
        """The row whose logits the next token is chosen by; the guesses' follow it."""
        return self._again

    def ran(self) -> None:
        """The pass, and the logits after its tokens, are there."""
        self._took_s = time.perf_counter() - self._started

    def settle(self, logits: NDArray[np.float32], on_route: RouteObserver | None) -> int:
        """Have tokens chosen as long as the guesses are they; return how many were made.

        ``logits`` are (1 + guesses, V). What was guessed wrongly is taken back.
        """
        sequence, right, made, drafted = self._sequence, 0, 0, len(self.tokens)
        wrong = False
        sequence.usage.drafts += drafted > 0
        sequence.usage.drafted_tokens += drafted
        for token, own in zip((*self.tokens, None), logits, strict=True):
            if not sequence.choose(own):
                wrong = token is not None and token not in sequence.job.end_ids
                break
            made += 1
            wrong = token is not None and sequence.tokens[-1] != token
            if sequence.state is State.ENDED or sequence.tokens[-1] != token:
                break
            right += 1
            sequence.usage.accepted_tokens += 1  # before the next is chosen, which may be the last
        self._tell(right, on_route)
        started = time.perf_counter()
        if drafted:
            sequence.take_back(self.mark + right, self.mark)
        took_s = self._took_s + time.perf_counter() - started
        # Where the answer has come to its end, guesses beyond it are neither right nor wrong.
        self._drafting.passed(self.rows, drafted if wrong else right, right, took_s)
        return made

    def _tell(self, right: int, on_route: RouteObserver | None) -> None:
        """Tell of the routing of what stays, and of nothing twice."""
        if on_route is not None:
            for event in self.events:
                on_route(rows_of(event, slice(self._again, self._again + 1 + right)))
