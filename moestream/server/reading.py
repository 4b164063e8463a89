"""Whose prompts are read next, in passes that can rest: what is kept of them is not read again.

Owns the passes under way, two at most, so that nobody waits for a long prompt, and what comes from
the disk. When steps are done is the scheduler's.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from moestream.engine.tokens import common_length
from moestream.layers.batch import CHUNK_TOKENS
from moestream.layers.cache import Cache
from moestream.prompt_cache import PromptCache, Restoring
from moestream.server.passes import Passes, Prefill
from moestream.server.prefixes import Prefixes
from moestream.server.sequence import SequenceRun, State

_PASSES = 2
"""Under way at once."""
_ALIKE_TOKENS = 64
"""Prompts that begin alike for so long are read one after the other: the second finds it kept."""
_RESTORE_S = 0.05
"""For how long stored prompts are read before others go on."""
_log = logging.getLogger(__name__)


class PromptReader:
    """Begins and ends passes of prompts."""

    def __init__(
        self, passes: Passes, prefixes: Prefixes, prompt_cache: PromptCache | None
    ) -> None:
        self._passes = passes
        self._prefixes = prefixes
        self._prompt_cache = prompt_cache
        self.under_way: list[Prefill] = []
        self._restoring: dict[SequenceRun, Restoring] = {}

    @property
    def members(self) -> list[SequenceRun]:
        """The sequences of all passes under way."""
        return [sequence for prefill in self.under_way for sequence, _ in prefill.members]

    def is_new(self, running: Sequence[SequenceRun]) -> bool:
        """Whether a pass may be begun of a prompt of which nothing is read yet."""
        unread = [s for s in running if s.state is State.READING and not s.cache.length]
        return len(self.under_way) < _PASSES and any(s not in self.members for s in unread)

    def begin(self, running: Sequence[SequenceRun]) -> None:
        """Begin a pass of what came first, and one of others: nobody waits for a long one.

        They get the same time, so that a short one is through in a few steps of a long one.
        """
        self._restore()
        while len(self.under_way) < _PASSES:
            members = self._choose(running)
            prefill = self._passes.begin(members) if members else None
            if prefill is None:
                return
            prefill.spent_s = min((other.spent_s for other in self.under_way), default=0.0)
            self.under_way.append(prefill)

    def _choose(self, running: Sequence[SequenceRun]) -> list[tuple[SequenceRun, int]]:
        """Whose tokens a new pass runs, and how many of each.

        The oldest first; beside another pass, the shortest.
        """
        under_way = self.members
        members: list[tuple[SequenceRun, int]] = []
        left = CHUNK_TOKENS
        free = [s for s in running if s.state is State.READING and s not in under_way]
        if under_way:
            free.sort(key=lambda sequence: sequence.pending)
        for sequence in free:
            if not left:
                break
            if sequence.cut():
                continue
            if sequence in self._restoring:
                continue
            if sequence.job.reuse and not sequence.cache.length:
                others = [*under_way, *self._restoring, *(s for s, _ in members)]
                if _begins_alike(sequence, others):
                    continue
                self._reuse(sequence, running)
                if sequence in self._restoring:
                    continue
            if not members and not under_way and sequence.pending > CHUNK_TOKENS:
                return [(sequence, min(sequence.pending, self._passes.most_tokens))]
            tokens = min(sequence.pending, left)
            members.append((sequence, tokens))
            left -= tokens
        return members

    def _reuse(self, sequence: SequenceRun, running: Sequence[SequenceRun]) -> None:
        """Before any of a prompt is run, take what is there of its beginning."""
        under_way = self.members
        others = [
            (other.tokens, other.cache)
            for other in running
            if other is not sequence
            and other.is_sound
            # Of a pass under way a recurrent state is neither old nor new.
            and (other.cache.can_rewind or other not in under_way)
        ]
        cache = self._prefixes.take(sequence.tokens, others)
        if cache is not None:
            sequence.reuse(cache)
        if self._prompt_cache is not None and not sequence.looked_up:
            sequence.looked_up = True  # once: what is stored here may lack on another machine
            with _told_if_not_restored():
                tokens, more_than = sequence.tokens, sequence.cache.length
                found = self._prompt_cache.find(tokens, more_than=more_than)
                if found is not None:
                    self._restoring[sequence] = found

    def _restore(self) -> None:
        """Go on with what comes from the disk, for a while."""
        stop_at = time.perf_counter() + _RESTORE_S
        for sequence, restoring in list(self._restoring.items()):
            cache: Cache | None = None
            with _told_if_not_restored():
                while not sequence.cut() and restoring.step():
                    if time.perf_counter() > stop_at:
                        return
                if not sequence.cut():
                    cache = restoring.finish()
            del self._restoring[sequence]
            if cache is not None:
                sequence.reuse(cache)

    def next(self) -> Prefill:
        """The pass whose turn it is: which had the least time."""
        return min(self.under_way, key=lambda prefill: prefill.spent_s)

    def end(self, prefill: Prefill) -> None:
        """It has come to its end."""
        self.under_way.remove(prefill)
        self._passes.end(prefill)

    def leave(self, prefill: Prefill) -> None:
        """Leave a pass where it is."""
        self.end(prefill)
        for sequence, _ in prefill.members:
            if sequence.is_sound:
                sequence.break_off()

    def leave_all(self) -> None:
        """Leave all of them."""
        self._restoring.clear()
        for prefill in list(self.under_way):
            self.leave(prefill)


@contextmanager
def _told_if_not_restored() -> Iterator[None]:
    """Of the disk or of memory: then the prompt is read again."""
    try:
        yield
    except (OSError, MemoryError) as error:
        _log.warning("a stored prompt was not restored: %s", error)


def _begins_alike(sequence: SequenceRun, others: Sequence[SequenceRun]) -> bool:
    """Whether what it begins with is being read for another just now."""
    return any(common_length(sequence.tokens, o.tokens) >= _ALIKE_TOKENS for o in others)
