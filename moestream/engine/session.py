"""Prompts and answers on a timeline of a loaded model, and what they took.

Knows nothing of text: token ids go in, token ids and statistics come out.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moestream.engine.drafts import Drafts, Stepping
from moestream.engine.expert_streaming import ExpertStreaming
from moestream.engine.options import SamplingParams
from moestream.engine.sampling import NO_BREAKERS, Breakers, Sampler
from moestream.engine.stats import Stats, StopReason
from moestream.engine.timeline import BrokenOff, Timeline
from moestream.layers.batch import CHUNK_TOKENS
from moestream.layers.cache import Caches
from moestream.layers.moe import RouteObserver
from moestream.models import Decoder
from moestream.streaming.statistics import ResidencyStats, Tally


class Session(Timeline):
    """A timeline that goes on by itself: prompts and answers, and what they cost."""

    def __init__(
        self,
        model: Decoder,
        *,
        caches: Caches,
        streaming: Callable[[], ExpertStreaming | None],
        check_file: Callable[[], None],
        drafts: Drafts | None = None,
    ) -> None:
        """Start empty; ``drafts`` make ``generate`` faster where tokens can be guessed.

        See ``Timeline`` for the others.
        """
        further = None if drafts is None else drafts.further()
        super().__init__(model, caches, streaming, check_file, further)
        self._drafts = drafts
        self.stats = Stats()
        self.stop_reason: StopReason | None = None

    def generate(
        self,
        tokens: Sequence[int],
        params: SamplingParams | None = None,
        *,
        max_tokens: int | None = None,
        end_ids: frozenset[int] = frozenset(),
        breakers: Breakers = NO_BREAKERS,
        on_route: RouteObserver | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[int]:
        """Append ``tokens``, then yield new ones until an end id, a limit, or the caller stops.

        ``stop`` is asked before each layer of ``tokens``, and can break their pass off; a token's
        only while other machines have it. ``breakers`` as in ``Sampler``.

        An end id is not yielded. ``stop_reason`` tells why it ended, ``stats`` what it took. A
        last token that nothing had to follow is not in ``tokens``: it was never run.

        Raises:
            ContextLengthError: the prompt does not fit; nothing was appended.
            ValueError: an empty prompt, or an id outside the vocabulary.
        """
        self.stop_reason = None
        self.decoding = False
        sampler = Sampler(params or SamplingParams(), end_ids=end_ids, breakers=breakers)
        started = time.perf_counter()
        try:
            logits = self._prefill(tokens, on_route, stop)
        except BrokenOff:
            self.stop_reason = "interrupted"
            return
        prefilled = time.perf_counter()
        self.stats.prompt_tokens += len(tokens)
        self.stats.prompt_s += prefilled - started
        produced = 0
        with Stepping(self, self._drafts, on_route) as step:
            while max_tokens is None or produced < max_tokens:
                step.chosen = token = sampler.sample(logits, self.tokens)
                if produced == 0:
                    self.stats.ttft_s = time.perf_counter() - started
                if token in end_ids:
                    self.stop_reason = "end"
                    return
                produced += 1
                self.stats.generated_tokens += 1
                yield token
                if produced == max_tokens:
                    break
                if len(self.tokens) >= self._cache.capacity:
                    self.stop_reason = "context"
                    return
                stepped = time.perf_counter()
                self.decoding = True
                before = replace(counted) if (counted := self._model.backend.work) else None
                most = self._cache.capacity - len(self.tokens)
                left = most if max_tokens is None else max_tokens - produced
                try:
                    with self._heeding(stop):
                        logits = step.after(token, min(most, left) - 1)
                except BrokenOff:
                    self.stop_reason = "interrupted"
                    return
                if counted is not None and before is not None:
                    self.stats.work += counted - before
                self.stats.generation_s += time.perf_counter() - stepped
                self.stats.generation_steps += 1
        self.stop_reason = "length"

    def prefill(
        self,
        tokens: Sequence[int],
        *,
        on_route: RouteObserver | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[int]:
        """Append tokens, all but the last ones, and yield now and then how far that is.

        For a long prompt of which ``generate`` then gets the rest. What is told is how many tokens
        the work done would be enough for: which were appended, ``tokens`` says. ``stop`` is asked
        often, and ends it there: tokens of a pass that was broken off were not appended.

        Raises:
            ContextLengthError, ValueError: as ``generate``.
        """
        self.decoding = False
        # Where a pass is long, a last chunk by itself would read nearly all experts once more.
        long = self._most_rows(CHUNK_TOKENS, on_route) > CHUNK_TOKENS < len(tokens)
        last = 1 if long else CHUNK_TOKENS
        whole = max(len(tokens) - 1, 0) // last * last
        if not whole:
            return
        done, started = 0, time.perf_counter()
        with suppress(BrokenOff):
            for ids, under_way in self._passes(tokens[:whole], CHUNK_TOKENS, on_route):
                under_way.fill_caches()
                for _ in self._steps(ids, under_way, stop):
                    if under_way.done == 1:
                        now = time.perf_counter()
                        self.stats.prompt_s, started = self.stats.prompt_s + now - started, now
                        self.stats.prompt_tokens += len(ids)
                    yield done + int(under_way.done * len(ids))
                under_way.hidden.clear()  # before the next pass has rows of its own
                done += len(ids)

    @property
    def residency(self) -> ResidencyStats | None:
        """What streaming the experts took, in all sessions of the engine; None if all is mapped."""
        streaming = self._streaming()
        return None if streaming is None else streaming.stats()

    @property
    def tally(self) -> Tally | None:
        """The few of these numbers that can be asked for at any time, as they cost nothing."""
        streaming = self._streaming()
        return None if streaming is None else streaming.tally()

    def run_last(self, token: int, on_route: RouteObserver | None) -> NDArray[np.float32]:
        """Append a token and return the logits after it: (V,)."""
        return self._prefill([token], on_route, None)

    def run_ahead(
        self, tokens: Sequence[int], on_route: RouteObserver | None
    ) -> NDArray[np.float32]:
        """Run a token and others that may be taken back; return the logits at each: (T, V).

        The cache then holds them and ``tokens`` does not: they become part of it with ``own``, and
        ``take_back`` forgets those that did not. What it left to be run again is run before them.
        """
        again = self.tokens[self._cache.length :]
        del self.tokens[self._cache.length :]
        self._mark = len(self.tokens) + len(again) + 1
        try:
            (hidden,) = self._hidden([*again, *tokens], CHUNK_TOKENS, on_route)
        except BaseException:
            del self.tokens[self._mark - 1 - len(again) :]
            self.tokens.extend(again)
            raise
        del self.tokens[-len(tokens) :]
        self.passes -= 1
        return self._model.logits(hidden[len(again) :])

    def own(self, token: int) -> None:
        """The next of the tokens that were run ahead is one of the timeline."""
        self.tokens.append(token)
        self.passes += 1
