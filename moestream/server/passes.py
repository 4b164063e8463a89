"""Passes of several sequences through the model: begun, run a layer at a time, and finished.

Owns what becomes of a pass that fails. Which sequences it is of is the scheduler's.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moestream.engine.engine import Engine
from moestream.errors import MoestreamError, ResourceError
from moestream.layers.batch import Batch
from moestream.layers.moe import RouteObserver
from moestream.models.decoder import Pass
from moestream.server.sequence import SequenceRun, State

Members = Sequence[tuple[SequenceRun, int]]
"""Sequences and how many tokens of each are run."""

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Prefill:
    """A pass under way, some of its layers run."""

    members: Members
    under_way: Pass


class Passes:
    """Runs passes on one engine."""

    def __init__(self, engine: Engine, on_route: RouteObserver | None) -> None:
        self._engine = engine
        self._on_route = on_route

    def begin(self, members: Members) -> Prefill | None:
        """Start a pass; None where it cannot be, and then its sequences have failed."""
        engine, ids = self._engine, []
        for sequence, tokens in members:
            at = sequence.cache.length
            ids += sequence.tokens[at : at + tokens]
        try:
            batch = Batch(engine.backend, [(s.cache, tokens) for s, tokens in members])
            if engine.streaming is not None:
                engine.streaming.before_pass(engine.caches.n_bytes)
            under_way = Pass(engine.model, np.asarray(ids, np.int32), batch, self._on_route)
        except Exception as error:
            _fail(members, error)
            return None
        return Prefill(members, under_way)

    def run_layer(self, prefill: Prefill) -> bool:
        """Run a layer; True at the end, or where it failed."""
        try:
            return prefill.under_way.run_layer()
        except Exception as error:
            _fail(prefill.members, error)
            return True

    def finish(self, prefill: Prefill) -> int:
        """Have those choose a token whose tokens are all run; return how many were made."""
        ready: list[SequenceRun] = []
        rows: list[int] = []
        row = 0
        for sequence, tokens in prefill.members:
            row += tokens
            if sequence.state is State.ENDED:
                continue
            if sequence.pending:
                sequence.read()
            else:
                ready.append(sequence)
                rows.append(row - 1)
        try:
            self._engine.file.check_intact()
            if not ready:
                return 0
            hidden = prefill.under_way.hidden
            last = self._engine.backend.stack_rows([hidden[row : row + 1] for row in rows])
            logits = self._engine.model.logits(last)
        except Exception as error:
            _fail(prefill.members, error)
            return 0
        return sum(s.choose(own) for s, own in zip(ready, logits, strict=True))


def _fail(members: Members, error: Exception) -> None:
    """End sequences whose pass broke: their caches are not sound any more."""
    if isinstance(error, MemoryError):
        error = ResourceError("there is not enough memory for this request; try again later")
    if not isinstance(error, MoestreamError):
        _log.error("a pass failed", exc_info=error)
        error = MoestreamError("this should not have happened; the server's log says more")
    for sequence, _ in members:
        sequence.spoil()
        if sequence.state is not State.ENDED:
            sequence.fail(error)
