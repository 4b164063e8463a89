"""Runs many sequences on one engine, in a thread of its own.

Owns who gets a place, and when tokens are written and read; which prompts are is ``reading``'s. A
sequence's tokens are the same to the bit whoever else is served, so nothing here can change an
answer.

A step gives each sequence that writes one token, in one pass for all (or a part of them: see
``writing``), and then goes on for a while with passes of those that read their prompts: a pass can
rest between two layers, so that a long prompt keeps nobody waiting.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from moestream.closing import Closing
from moestream.engine.engine import Engine
from moestream.errors import BusyError, ContextLengthError
from moestream.layers.moe import RouteObserver
from moestream.prompt_cache import PromptCache
from moestream.server.calls import Calls
from moestream.server.jobs import Deliver, Job
from moestream.server.memory import KVMemory
from moestream.server.passes import Passes, Prefill
from moestream.server.prefixes import Prefixes
from moestream.server.reading import PromptReader
from moestream.server.sequence import SequenceRun, State, fail_all
from moestream.server.writing import TokenWriter

Ticket = SequenceRun
"""What ``submit`` gives: to be cancelled, and to be looked at."""

_SLICE_S = 0.1
"""For how long prompts are read before those that write get their next token."""


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
        self._prompts = PromptReader(self._passes, self.prefixes, prompt_cache)
        self._writer = TokenWriter(self._passes, engine.machines)
        self._calls = Calls()
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

    def call(self, work: Callable[[], Any]) -> "Future[Any]":
        """Have something done on the scheduler's thread, between two steps; soon, if at all."""
        with self._changed:
            told = self._calls.add(work)
            if self._closing:
                self._calls.cancel()
            self._changed.notify()
        return told

    def look_on(self, onlooker: RouteObserver | None) -> None:
        """Tell this one of routing too, from the next pass on; to be called on its thread."""
        self._passes.onlooker = onlooker

    def close(self) -> None:
        """End all jobs and the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()
        self._calls.cancel()
        self._writer.leave_all()
        for sequence in (*self._running, *self._waiting):
            if sequence.state is not State.ENDED:
                sequence.end("interrupted")
        self._prompts.leave_all()
        for sequence in self._running:
            if sequence.is_sound and sequence.job.reuse:
                self._keep(sequence)
        self._waiting.clear()
        self._running.clear()
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
                self._calls.run()
                self.step()
            except Exception as error:
                self._begin_anew(error)

    def _begin_anew(self, error: Exception) -> None:
        """After what should not have happened: end all that run, and go on with the others."""
        self._writer.leave_all()
        self._prompts.leave_all()
        with self._changed:
            failed, self._running = self._running, []
        fail_all(failed, error)
        self.prefixes.clear()

    def _await_work(self) -> bool:
        """Wait until there is something to do; False once closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._waiting or self._running or self._calls
            )
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
                sequence.begin(self.engine.caches.new(), self.engine.drafts)

    def _has_place(self) -> bool:
        """Whether one that waits can be given a place."""
        with self._changed:
            free = self._waiting and len(self._running) < self.parallel
            return bool(free) and self._memory.has_room(self._waiting[0], self._running)

    def _write(self) -> None:
        """One token of each sequence that writes, or of those whose pass is due."""
        started = time.perf_counter()
        self._have_written(self._writer.next(self._running), started)

    def _have_written(self, prefill: Prefill | None, started: float) -> None:
        """A pass has come to its end."""
        if prefill is None:
            return
        self.totals.add_pass(len(prefill.members))  # before its tokens are told: then it has been
        self.totals.generated_tokens += self._passes.finish(prefill)
        self.totals.generation_s += time.perf_counter() - started
        self.totals.passes += 1

    def _await_written(self) -> None:
        """Have no pass of those that write under way: then what they remember is whole."""
        while self._writer.under_way:
            started = time.perf_counter()
            self._have_written(self._writer.take_in(), started)

    def _read(self) -> None:
        """Go on with prompts, each pass in its turn, until a token can be written or time is up."""
        stop_at = time.perf_counter() + _SLICE_S
        writing = any(s.state is State.WRITING for s in self._running)
        if self._prompts.is_new(self._running):  # it may begin with what another remembers
            self._await_written()
        self._prompts.begin(self._running)
        while self._prompts.under_way:
            prefill, started = self._prompts.next(), time.perf_counter()
            finished = self._advance(prefill)
            took = time.perf_counter() - started
            prefill.spent_s += took
            self.totals.prompt_s += took
            late = writing and time.perf_counter() > stop_at
            if finished or late or self._is_wanted():
                return

    def _is_wanted(self) -> bool:
        """Whether there is something to do that is not to wait for the end of a prompt."""
        return self._closing or bool(self._calls) or self._has_place() or self._any_cancelled()

    def _advance(self, prefill: Prefill) -> bool:
        """Do a step; return whether it was the last."""
        if not self._passes.advance(prefill):
            return False
        self._prompts.end(prefill)
        self.totals.add_pass(len(prefill.members))
        self.totals.prompt_tokens += sum(tokens for _, tokens in prefill.members)
        self.totals.generated_tokens += self._passes.finish(prefill)
        return True

    def _any_cancelled(self) -> bool:
        return any(s.cancelled.is_set() for s in self._running)

    def _release(self) -> None:
        """Take places back, and keep what their sequences have read."""
        for prefill in list(self._prompts.under_way):
            if all(sequence.cut() for sequence, _ in prefill.members):
                self._prompts.leave(prefill)  # nobody waits for it
        busy = [*self._prompts.members, *self._writer.members]
        for sequence in list(self._running):
            if not sequence.cut() or sequence in busy:
                continue
            with self._changed:
                self._running.remove(sequence)
            self.totals.cached_tokens += sequence.usage.cached_tokens
            if sequence.is_sound and sequence.job.reuse:
                self._keep(sequence)
            sequence.spoil()

    def _keep(self, sequence: SequenceRun) -> None:
        sequence.cache.trim()
        if self._prompt_cache is not None:
            self._prompt_cache.save(sequence.tokens, sequence.cache)
        self.prefixes.keep(sequence.tokens, sequence.cache)
