"""Passes of several sequences through the model: begun, run a layer at a time, and finished.

Owns what becomes of a pass that fails. Which sequences it is of is the scheduler's.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from moestream.engine.engine import Engine
from moestream.engine.streamed_passes import begin_pass, end_pass, pass_tokens
from moestream.engine.timeline import BrokenOff
from moestream.layers.batch import CHUNK_TOKENS, cut
from moestream.layers.moe import RouteObserver, RoutingEvent
from moestream.models.passes import Pass
from moestream.server.guesses import Guesses
from moestream.server.sequence import SequenceRun, State, end_all, fail_all

Members = Sequence[tuple[SequenceRun, int]]
"""Sequences and how many tokens of each are run."""

_TELL_S = 0.5
"""Between two words on how far a pass is."""


@dataclass(eq=False, slots=True)
class Prefill:
    """A pass under way, some of its layers run."""

    members: Members
    under_way: Pass
    guesses: Guesses | None = None
    """Where it is of one sequence that writes alone."""
    told_at: float = field(default_factory=time.perf_counter)
    """When its sequences heard last how far it is."""
    spent_s: float = 0.0
    """What it has taken, counted from what those beside it had when it began."""


class Passes:
    """Runs passes on one engine."""

    def __init__(self, engine: Engine, on_route: RouteObserver | None) -> None:
        self._engine = engine
        self._on_route = on_route
        self.onlooker: RouteObserver | None = None
        """Is told of routing as well, in whatever order a pass comes to it."""

    @property
    def most_tokens(self) -> int:
        """Tokens that a pass of one sequence may run."""
        engine = self._engine
        return pass_tokens(engine.streaming, engine.config, CHUNK_TOKENS, in_order=False)

    def begin(self, members: Members, guesses: Guesses | None = None) -> Prefill | None:
        """Start a pass, of one sequence alone where it is of more than a chunk.

        ``guesses`` come behind all tokens of the only one. None where it cannot be, and then its
        sequences have failed.
        """
        engine, ids = self._engine, []
        for sequence, tokens in members:
            at = sequence.cache.length
            ids += sequence.tokens[at : at + tokens]
        parts, observer, mark = [(s.cache, tokens) for s, tokens in members], self._observer(), 0
        if guesses is not None and guesses.tokens:
            ids += guesses.tokens
            parts, mark = [(parts[0][0], len(ids))], guesses.mark
        if guesses is not None:  # rows that are run again are not heard twice
            observer = observer and guesses.events.append
        try:
            chunks = cut(engine.backend, parts, CHUNK_TOKENS, observer, mark)
            rows = np.asarray(ids, np.int32)
            under_way = begin_pass(
                engine.streaming, engine.model, engine.caches.n_bytes, rows, chunks
            )
        except Exception as error:
            fail_all([s for s, _ in members], error)
            return None
        if all(sequence.pending > tokens for sequence, tokens in members):
            under_way.fill_caches()
        return Prefill(members, under_way, guesses)

    def _observer(self) -> RouteObserver | None:
        first, second = self._on_route, self.onlooker
        if first is None or second is None:
            return first or second

        def both(event: RoutingEvent) -> None:
            first(event)
            second(event)

        return both

    def end(self, prefill: Prefill) -> None:
        """A pass has come to its end, or is left where it is."""
        end_pass(self._engine.streaming, self._engine.model, prefill.under_way)

    def advance(self, prefill: Prefill) -> bool:
        """Do a step of it; True at the end, or where it failed."""
        try:
            ended = prefill.under_way.advance()
        except BrokenOff:  # of several machines, the first waits for the others no more
            end_all([s for s, _ in prefill.members], "interrupted")
            return True
        except Exception as error:
            fail_all([s for s, _ in prefill.members], error)
            return True
        if not ended and time.perf_counter() > prefill.told_at + _TELL_S:
            prefill.told_at = time.perf_counter()
            for sequence, tokens in prefill.members:
                sequence.read(int(prefill.under_way.done * tokens))
        return ended

    def finish(self, prefill: Prefill) -> int:
        """Have those choose a token whose tokens are all run; return how many were made."""
        under_way, guesses = prefill.under_way, prefill.guesses
        ready, rows = _ready(prefill)
        try:
            self._engine.file.check_intact()
            _show(prefill)
            if not ready:
                return 0
            last = self._engine.backend.stack_rows([under_way.row(row) for row in rows])
            logits = self._engine.model.logits(last)
        except Exception as error:
            fail_all([s for s, _ in prefill.members], error)
            return 0
        if guesses is not None:
            guesses.ran()
            return guesses.settle(logits, self._observer())
        return sum(s.choose(own) for s, own in zip(ready, logits, strict=True))


def _ready(prefill: Prefill) -> tuple[list[SequenceRun], list[int]]:
    """Whose tokens are all run, and the rows whose logits are wanted for that."""
    ready: list[SequenceRun] = []
    rows: list[int] = []
    row = 0
    for sequence, tokens in prefill.members:
        row += tokens
        if sequence.state is State.ENDED:
            continue
        if sequence.pending > 0:
            sequence.read()
        else:
            ready.append(sequence)
            rows.append(row - 1)
    if ready and prefill.guesses is not None:
        return ready, list(range(prefill.guesses.first_row, prefill.guesses.rows))
    return ready, rows


def _show(prefill: Prefill) -> None:
    """Show what the rows came to to those who guess by it."""
    hidden, members = prefill.under_way.hidden, prefill.members
    if len(members) == 1:
        ((sequence, _),), guesses = members, prefill.guesses
        if sequence.is_sound:
            sequence.saw(hidden, () if guesses is None else guesses.tokens)
        return
    row = 0
    for sequence, tokens in members:
        if sequence.is_sound:
            sequence.saw([hidden[0][row : row + tokens]], ())
        row += tokens
