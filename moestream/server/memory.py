"""How much the keys and values of all sequences may take, and who gives way.

Owns two limits: what running sequences may come to together, beyond which one waits for its place;
and what is kept of sequences that ended, which goes first. Experts give way by themselves, as the
engine tells their residency how large the caches are.
"""

from collections.abc import Iterable

from moestream.engine.engine import Engine
from moestream.server.prefixes import Prefixes
from moestream.server.sequence import SequenceRun
from moestream.streaming.memory import available_memory

_COPIES = 8
"""Of recurrent states that a sequence comes to have, about."""
_SHARE = 2
"""Of the memory that is free at the start, one part in so many."""


class KVMemory:
    """Keeps the caches of one engine within their limits."""

    def __init__(self, engine: Engine, parallel: int, prefixes: Prefixes) -> None:
        self._engine = engine
        self._prefixes = prefixes
        context = engine.kv_bytes(engine.context_length)
        self.most_bytes = max(context, _most_bytes(engine))
        """Of all caches."""
        self.kept_bytes = context if engine.streaming is not None else self.most_bytes
        """Of those that are kept beside what runs: where experts are streamed, one context."""

    def has_room(self, sequence: SequenceRun, running: Iterable[SequenceRun]) -> bool:
        """Whether all that a sequence may come to fits beside the others; alone it always may."""
        others = [self._most(s) for s in running]
        return not others or sum(others) + self._most(sequence) <= self.most_bytes

    def keep_within(self, running: Iterable[SequenceRun]) -> None:
        """Let go of kept sequences that there is no room for."""
        caches = self._engine.caches
        if caches.n_bytes <= self.kept_bytes:  # asked after each token, and nearly always so
            return
        needed = sum(self._engine.kv_bytes(len(s.tokens) + 1) for s in running)
        most = min(self.most_bytes, needed + self.kept_bytes)
        while caches.n_bytes > most and self._prefixes.drop_oldest():
            pass

    def _most(self, sequence: SequenceRun) -> int:
        """Bytes that a sequence may come to."""
        context, job = self._engine.context_length, sequence.job
        most = context if job.max_tokens is None else len(job.prompt) + job.max_tokens
        copies = _COPIES * self._engine.caches.recurrent_bytes
        return self._engine.kv_bytes(min(context, most)) + copies


def _most_bytes(engine: Engine) -> int:
    plan = engine.plan
    if plan is None:
        return available_memory().available_bytes // _SHARE
    if plan.fits:
        return plan.budget_bytes - plan.dense_bytes - plan.total_expert_bytes - plan.process_bytes
    return plan.kv_bytes + plan.experts_bytes - plan.floor_bytes
