"""Runs many sequences on one engine, in a thread of its own.

Owns who gets a place, and whose tokens are run when. A sequence's tokens are the same to the bit
whoever else is served, so nothing here can change an answer.

A step gives each sequence that writes one token, in one pass for all, and then goes on for a while
with passes of those that read their prompts: a pass can rest between two layers, so that a long
prompt keeps nobody waiting.
"""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from moestream.closing import Closing
from moestream.engine.engine import Engine
from moestream.errors import BusyError, ContextLengthError, MoestreamError
from moestream.layers.batch import CHUNK_TOKENS
from moestream.layers.moe import RouteObserver
from moestream.prompt_cache import PromptCache
from moestream.server.jobs import Deliver, Job
from moestream.server.memory import KVMemory
from moestream.server.passes import UNFORESEEN, Passes, Prefill
from moestream.server.prefixes import Prefixes, common_length
from moestream.server.sequence import SequenceRun, State

Ticket = SequenceRun
"""What ``submit`` gives: to be cancelled, and to be looked at."""

_log = logging.getLogger(__name__)
_SLICE_S = 0.1
"""For how long prompts are read before those that write get their next token."""
_ALIKE_TOKENS = 64
"""Prompts that begin alike for so long are read one after the other: the second finds it kept."""


@dataclass(slots=True)
class Totals:
    """What was done since the start."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    prompt_s: float = 0.0
    generation_s: float = 0.0
    passes: int = 0
    """Of those that write."""
    decodes: int = 0
    """All passes, those that read prompts too."""
    decoded: int = 0
    """Sequences in all of those."""

    def add_pass(self, sequences: int) -> None:
        """Note that one has ended."""
        self.decodes += 1
        self.decoded += sequences


class Scheduler(Closing):
    """Takes jobs from any thread and runs them; ``close`` ends what runs and what waits."""

    def __init__(
        self,
        engine: Engine,
        *,
        parallel: int = 4,
        waiting: int = 64,
        on_route: RouteObserver | None = None,
        prompt_cache: PromptCache | None = None,
        threaded: bool = True,
    ) -> None:
        """``parallel`` sequences share the engine, and so many more may wait for a place.

        ``prompt_cache`` has what was read in other runs, and is given what is read in this one.
        Not ``threaded``, it does nothing by itself: whoever made it calls ``step``.
        """
        self.engine = engine
        self.parallel = parallel
        self.totals = Totals()
        self.prefixes = Prefixes()
        self._prompt_cache = prompt_cache
        self._memory = KVMemory(engine, parallel, self.prefixes)
        self._passes = Passes(engine, on_route)
        self._most_waiting = waiting
        self._changed = threading.Condition()
        self._waiting: deque[SequenceRun] = deque()
        self._running: list[SequenceRun] = []
        self._prefills: list[Prefill] = []
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        if threaded:
            self._thread.start()

    def submit(self, job: Job, deliver: Deliver) -> Ticket:
        """Hand in a job; its events go to ``deliver``, the last one is ``Ended`` or ``Failed``.

        Raises:
            BusyError: as many wait already as may, or the scheduler is closed.
            ContextLengthError: the prompt does not fit in the context.
            ValueError: no tokens, or an id outside the vocabulary.
        """
        self._check(job)
        sequence = SequenceRun(job, deliver)
        with self._changed:
            free = max(self.parallel - len(self._running), 0)
            if self._closing or len(self._waiting) >= self._most_waiting + free:
                raise BusyError("all places are taken and the queue is full; try again soon")
            self._waiting.append(sequence)
            self.totals.requests += 1
            self._changed.notify()
        return sequence

    def status(self) -> tuple[list[SequenceRun], int]:
        """Return the sequences that have places, and how many wait; to be looked at alone."""
        with self._changed:
            return list(self._running), len(self._waiting)

    def close(self) -> None:
        """End all jobs and the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()
        for sequence in (*self._running, *self._waiting):
            if sequence.state is not State.ENDED:
                sequence.end("interrupted")
        for prefill in self._prefills:
            self._leave(prefill)
        for sequence in self._running:
            if sequence.is_sound and sequence.job.reuse:
                self._keep(sequence)
        self._waiting.clear()
        self._running.clear()
        self._prefills.clear()
        self.prefixes.clear()

    def step(self) -> None:
        """Give places, write a token of each sequence that writes, and read on."""
        self._admit()
        self._write()
        self._read()
        self._release()
        self._memory.keep_within(self._running)

    def _check(self, job: Job) -> None:
        vocab_size, context = self.engine.config.vocab_size, self.engine.context_length
        if not job.prompt:
            raise ValueError("no tokens to run; at least one is needed")
        if min(job.prompt) < 0 or max(job.prompt) >= vocab_size:
            raise ValueError(f"token ids must lie in 0 to {vocab_size - 1}")
        if len(job.prompt) > context:
            raise ContextLengthError(
                f"The request has {len(job.prompt):,} tokens and exceeds the available context "
                f"size of {context:,}. Shorten it, or start the server with a larger -c."
            )

    def _work(self) -> None:
        while self._await_work():
            try:
                self.step()
            except Exception as error:
                self._begin_anew(error)

    def _begin_anew(self, error: Exception) -> None:
        """After what should not have happened: end all that run, and go on with the others."""
        _log.error("a step failed", exc_info=error)
        for prefill in self._prefills:
            self._passes.end(prefill)
        self._prefills.clear()
        with self._changed:
            failed, self._running = self._running, []
        for sequence in failed:
            sequence.spoil()
            if sequence.state is not State.ENDED:
                sequence.fail(MoestreamError(UNFORESEEN))
        self.prefixes.clear()

    def _await_work(self) -> bool:
        """Wait until there is something to do; False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waiting or self._running)
            return not self._closing

    def _admit(self) -> None:
        """Give places to those that wait, in the order in which they came."""
        with self._changed:
            for sequence in [s for s in self._waiting if s.cancelled.is_set()]:
                self._waiting.remove(sequence)
                sequence.end("interrupted")
            while self._waiting and len(self._running) < self.parallel:
                if not self._memory.has_room(self._waiting[0], self._running):
                    return
                self._running.append(sequence := self._waiting.popleft())
                sequence.begin(self.engine.caches.new())

    def _has_place(self) -> bool:
        """Whether one that waits can be given a place."""
        with self._changed:
            free = self._waiting and len(self._running) < self.parallel
            return bool(free) and self._memory.has_room(self._waiting[0], self._running)

    def _write(self) -> None:
        """One token of each sequence that writes."""
        writing = [s for s in self._running if s.state is State.WRITING and not self._cut(s)]
        prefill = self._passes.begin([(s, 1) for s in writing]) if writing else None
        if prefill is None:
            return
        started = time.perf_counter()
        while not self._passes.advance(prefill):
            pass
        self.totals.add_pass(len(writing))  # before its tokens are told: then it has been
        self.totals.generated_tokens += self._passes.finish(prefill)
        self.totals.generation_s += time.perf_counter() - started
        self.totals.passes += 1

    def _read(self) -> None:
        """Go on with prompts, each pass in its turn, until a token can be written or time is up."""
        stop_at = time.perf_counter() + _SLICE_S
        writing = any(s.state is State.WRITING for s in self._running)
        self._begin_prefills()
        while self._prefills:
            finished = False
            for prefill in list(self._prefills):
                started = time.perf_counter()
                finished |= self._advance(prefill)
                self.totals.prompt_s += time.perf_counter() - started
            late = writing and time.perf_counter() > stop_at
            if finished or late or self._closing or self._has_place() or self._any_cancelled():
                return

    def _advance(self, prefill: Prefill) -> bool:
        """Do a step; return whether it was the last."""
        if not self._passes.advance(prefill):
            return False
        self._prefills.remove(prefill)
        self._passes.end(prefill)
        self.totals.add_pass(len(prefill.members))
        self.totals.prompt_tokens += sum(tokens for _, tokens in prefill.members)
        self.totals.generated_tokens += self._passes.finish(prefill)
        return True

    def _begin_prefills(self) -> None:
        """Begin a pass of what came first, and one of others: nobody waits for a long one.

        Their steps alternate.
        """
        while len(self._prefills) < 2:
            members = self._choose()
            prefill = self._passes.begin(members) if members else None
            if prefill is None:
                return
            self._prefills.append(prefill)

    def _choose(self) -> list[tuple[SequenceRun, int]]:
        """Whose tokens a new pass runs, and how many of each.

        The oldest first; beside another pass, the shortest.
        """
        under_way = [s for prefill in self._prefills for s, _ in prefill.members]
        members: list[tuple[SequenceRun, int]] = []
        left = CHUNK_TOKENS
        free = [s for s in self._running if s.state is State.READING and s not in under_way]
        if under_way:
            free.sort(key=lambda sequence: sequence.pending)
        for sequence in free:
            if self._cut(sequence):
                continue
            if sequence.job.reuse and not sequence.cache.length:
                if _begins_alike(sequence, [*under_way, *(s for s, _ in members)]):
                    continue
                self._reuse(sequence, under_way)
            if not members and not under_way and sequence.pending > CHUNK_TOKENS:
                return [(sequence, min(sequence.pending, self._passes.most_tokens))]
            if tokens := min(sequence.pending, left):
                members.append((sequence, tokens))
                left -= tokens
        return members

    def _reuse(self, sequence: SequenceRun, under_way: list[SequenceRun]) -> None:
        """Before any of a prompt is run, take what is there of its beginning."""
        running = [
            (other.tokens, other.cache)
            for other in self._running
            if other is not sequence
            and other.is_sound
            # Of a pass under way a recurrent state is neither old nor new.
            and (other.cache.can_rewind or other not in under_way)
        ]
        cache = self.prefixes.take(sequence.tokens, running)
        if self._prompt_cache is not None:
            more_than = 0 if cache is None else cache.length
            try:
                cache = self._prompt_cache.restore(sequence.tokens, more_than=more_than) or cache
            except (OSError, MemoryError) as error:  # of memory: then it is read again
                _log.warning("a stored prompt was not restored: %s", error)
        if cache is not None:
            sequence.reuse(cache)

    def _any_cancelled(self) -> bool:
        return any(s.cancelled.is_set() for s in self._running)

    def _cut(self, sequence: SequenceRun) -> bool:
        """End a sequence that was cancelled; return whether it has ended."""
        if sequence.cancelled.is_set() and sequence.state is not State.ENDED:
            sequence.end("interrupted")
        return sequence.state is State.ENDED

    def _release(self) -> None:
        """Take places back, and keep what their sequences have read."""
        for prefill in list(self._prefills):
            if all(self._cut(sequence) for sequence, _ in prefill.members):
                self._prefills.remove(prefill)  # nobody waits for it
                self._leave(prefill)
        busy = [s for prefill in self._prefills for s, _ in prefill.members]
        for sequence in list(self._running):
            if not self._cut(sequence) or sequence in busy:
                continue
            with self._changed:
                self._running.remove(sequence)
            self.totals.cached_tokens += sequence.usage.cached_tokens
            if sequence.is_sound and sequence.job.reuse:
                self._keep(sequence)
            sequence.spoil()

    def _leave(self, prefill: Prefill) -> None:
        """Leave a pass where it is."""
        self._passes.end(prefill)
        for sequence, _ in prefill.members:
            if sequence.is_sound:
                sequence.break_off()

    def _keep(self, sequence: SequenceRun) -> None:
        sequence.cache.trim()
        if self._prompt_cache is not None:
            self._prompt_cache.save(sequence.tokens, sequence.cache)
        self.prefixes.keep(sequence.tokens, sequence.cache)


def _begins_alike(sequence: SequenceRun, others: list[SequenceRun]) -> bool:
    """Whether what it begins with is being read for another just now."""
    own = np.asarray(sequence.tokens, np.int32)
    return any(common_length(own, np.asarray(o.tokens, np.int32)) >= _ALIKE_TOKENS for o in others)
