"""One job as it runs: what of its prompt is read, what was written, and what is heard of it."""

import errno
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.engine.drafts import Drafting, Drafts
from moestream.engine.drafts.mtp import Further
from moestream.engine.sampling import Sampler, log_probabilities
from moestream.engine.stats import StopReason
from moestream.errors import MoestreamError, NumericError, RequestError, ResourceError
from moestream.layers.cache import Cache
from moestream.server.jobs import Deliver, Ended, Event, Failed, Job, Made, Reading, Usage

_log = logging.getLogger(__name__)

_TELL_S = 0.1
"""Tokens of so short a time are told together, all sequences' at once, with the first token of the
next. To wake whoever hears of them takes the cores that compute: by each token it was 11 % of the
demo's speed."""


class State(Enum):
    """Where a sequence stands."""

    WAITING = auto()
    """For a place."""
    READING = auto()
    """Its prompt."""
    WRITING = auto()
    """A token a step."""
    ENDED = auto()


@dataclass(eq=False, slots=True)
class SequenceRun:
    """A job that was handed in. All but ``cancel`` belongs to the scheduler's thread."""

    job: Job
    deliver: Deliver
    state: State = State.WAITING
    tokens: list[int] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    cancelled: threading.Event = field(default_factory=threading.Event)
    drafting: Drafting | None = None
    """Guesses its tokens, where that is wanted."""
    looked_up: bool = False
    """Whether stored prompts were searched for its beginning."""
    _further: Further | None = None
    _cache: Cache | None = None
    _sampler: Sampler | None = None
    _since: float = field(default_factory=time.perf_counter)
    _untold: list[Event] = field(default_factory=list)
    _told_in: int = -1
    """In which time of ``_TELL_S`` tokens were told last."""

    def cancel(self) -> None:
        """End it within a step, with ``Ended("interrupted")`` as its last event."""
        self.cancelled.set()

    def cut(self) -> bool:
        """End it where it was cancelled; return whether it has ended."""
        if self.cancelled.is_set() and self.state is not State.ENDED:
            self.end("interrupted")
        return self.state is State.ENDED

    @property
    def cache(self) -> Cache:
        """Holds all of ``tokens`` but those that are still to be run; a sequence's with a place."""
        assert self._cache is not None
        return self._cache

    @property
    def is_sound(self) -> bool:
        """Whether the cache is what the tokens make it."""
        return self._cache is not None

    @property
    def pending(self) -> int:
        """Tokens that are to be run: what is left of the prompt, or the last one that was made."""
        return len(self.tokens) - self.cache.length

    @property
    def room(self) -> int:
        """Tokens that may still be made."""
        room, most = self.cache.capacity + 1 - len(self.tokens), self.job.max_tokens
        return room if most is None else min(room, most - self.usage.generated_tokens)

    def begin(self, cache: Cache, drafts: Drafts) -> None:
        """Take a place, with an empty cache."""
        job = self.job
        self._further = drafts.further()
        self.drafting = drafts.begin(self._further, job.predicted)
        self._sampler = Sampler(
            job.sampling, end_ids=job.end_ids, constraint=job.constraint, breakers=job.breakers
        )
        self.tokens, self._cache, self.state = list(job.prompt), cache, State.READING
        self.usage.prompt_tokens, self.usage.queue_s = len(job.prompt), self._lap()
        self.read()

    def reuse(self, cache: Cache) -> None:
        """Begin from a cache that holds more of the prompt, none of which was run yet."""
        self._cache, self.usage.cached_tokens = cache, cache.length
        self.read()

    def read(self, under_way: int = 0) -> None:
        """Tell how much of the prompt has been run, and ``under_way`` in a pass not yet ended."""
        if self.state is State.READING:
            done = self.cache.length + under_way
            self._tell(Reading(done, len(self.job.prompt), self.usage.cached_tokens))

    def saw(self, hidden: Sequence[Array], guessed: Sequence[int]) -> None:
        """Its last tokens, and guesses after all of them, came to these states of the model."""
        if self._further is not None:
            start = self.cache.length - sum(map(len, hidden))
            self._further.saw([*self.tokens, *guessed], start, hidden)

    def take_back(self, length: int, mark: int) -> None:
        """Forget what was run beyond so many tokens; what a recurrent state needs is run again.

        ``mark`` is the length to which a copy of that was kept for this.
        """
        self.cache.truncate(self.cache.nearest(length))
        self.cache.unmark(mark)
        if self._further is not None:
            self._further.truncate(length)

    def choose(self, logits: NDArray[np.float32]) -> bool:
        """All tokens were run, and these are the logits (V,) after them: go on, or end.

        Returns whether a token was made.
        """
        assert self._sampler is not None
        if self.state is State.READING:
            self.usage.prompt_s, self.state = self._lap(), State.WRITING
            self.cache.keep_state()  # where another answer may begin
        else:
            self.usage.generation_s += self._lap()
        if self.job.max_tokens == 0:
            self.end("length")
            return False
        try:
            token = self._sampler.sample(logits, self.tokens)
        except NumericError as error:
            sound = bool(np.isfinite(logits).all())  # then it is the request that allows nothing
            self.fail(RequestError(str(error)) if sound else error)
            return False
        except Exception as error:
            self.fail(foreseen(error))
            return False
        if token in self.job.end_ids:
            self.end("end")
            return False
        self.usage.generated_tokens += 1
        self.tokens.append(token)
        made = self._made(token, logits)
        reason = self._limit()
        if reason is None:
            self._tell_soon(made)
        else:
            self.end(reason, made)
        return True

    def end(self, reason: StopReason, *events: Event) -> None:
        """Nothing more comes."""
        self.state = State.ENDED
        self._tell(*events, Ended(reason, self.usage))

    def fail(self, error: MoestreamError) -> None:
        """Nothing more comes, for a reason that its client is told."""
        self.state = State.ENDED
        self._tell(Failed(error))

    def spoil(self) -> None:
        """Let go of the cache."""
        self._cache = None

    def break_off(self) -> None:
        """A pass was left in the middle: a recurrent state of it is neither old nor new."""
        if not self.cache.can_rewind:
            self.spoil()

    def _limit(self) -> StopReason | None:
        if self.usage.generated_tokens == self.job.max_tokens:
            return "length"
        return "context" if len(self.tokens) > self.cache.capacity else None

    def _made(self, token: int, logits: NDArray[np.float32]) -> Made:
        most = self.job.top_logprobs
        if most is None:
            return Made(token)
        own, likeliest = log_probabilities(logits, token, most)
        return Made(token, own, tuple(likeliest))

    def _tell(self, *events: Event) -> None:
        told, self._untold = (*self._untold, *events), []
        self.deliver(told)

    def _tell_soon(self, made: Made) -> None:
        """Tell now, or together with what comes next."""
        now = int(time.perf_counter() / _TELL_S)
        if now == self._told_in:
            self._untold.append(made)
        else:
            self._told_in = now
            self._tell(made)

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self._since = now - self._since, now
        return lap


def fail_all(sequences: Iterable[SequenceRun], error: Exception) -> None:
    """End sequences whose pass, or step, broke: their caches are not sound any more."""
    told = foreseen(error)
    for sequence in sequences:
        sequence.spoil()
        if sequence.state is not State.ENDED:
            sequence.fail(told)


def end_all(sequences: Iterable[SequenceRun], reason: StopReason) -> None:
    """End sequences whose pass was broken off: their caches are not sound any more."""
    for sequence in sequences:
        sequence.spoil()
        if sequence.state is not State.ENDED:
            sequence.end(reason)


def foreseen(error: Exception) -> MoestreamError:
    """What a client is told of an error; the log has what nobody foresaw."""
    if isinstance(error, MoestreamError):
        return error
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return ResourceError("there is not enough memory for this request; try again later")
    _log.error("this should not have happened", exc_info=error)
    return MoestreamError("this should not have happened; the server's log says more")
