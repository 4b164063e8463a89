"""One token timeline on a loaded model: prefill, generation, and what they took.

Knows nothing of text: token ids go in, token ids and statistics come out.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.engine.drafts import Drafts, Stepping
from moestream.engine.expert_streaming import ExpertStreaming
from moestream.engine.options import SamplingParams
from moestream.engine.sampling import NO_BREAKERS, Breakers, Sampler
from moestream.engine.stats import Stats, StopReason
from moestream.engine.streamed_passes import begin_pass, end_pass, pass_tokens
from moestream.errors import ContextLengthError
from moestream.layers.batch import CHUNK_TOKENS, cut
from moestream.layers.cache import Cache, Caches
from moestream.layers.moe import RouteObserver
from moestream.models import Decoder
from moestream.models.passes import Pass
from moestream.streaming.statistics import ResidencyStats, Tally


class BrokenOff(Exception):  # noqa: N818 - asked for, no error
    """A pass was broken off because its caller wished so."""


class Session:
    """One token timeline: its KV cache, the tokens in it, and what it cost."""

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

        ``streaming`` is asked before each pass whether experts are streamed by now; ``check_file``
        makes sure of its results after it.
        """
        self._model = model
        self._streaming = streaming
        self._check_file = check_file
        self._drafts = drafts
        self.further = None if drafts is None else drafts.further()
        """Follows the tokens, where guesses need that."""
        self.tokens: list[int] = []
        self.stats = Stats()
        self.stop_reason: StopReason | None = None
        self.passes = 0
        """Passes that were run to their end: what observers heard of others did not happen."""
        self.decoding = False
        """Whether the pass that runs, or ran last, is of a token that ``generate`` made."""
        self._cache = caches.new()
        self._torn = False
        """Whether a pass broke off in the middle, in a state that cannot be rewound."""
        self._mark = 0
        """Length of ``tokens`` to which a pass that ran ahead can be taken back."""

    def forward(
        self,
        tokens: Sequence[int],
        *,
        chunk_tokens: int = CHUNK_TOKENS,
        on_route: RouteObserver | None = None,
    ) -> NDArray[np.float32]:
        """Append tokens and return the logits at every one of them: (T,) -> (T, V).

        Raises:
            ContextLengthError: they do not fit; nothing was appended.
            ValueError: no tokens, or an id outside the vocabulary.
        """
        self.decoding = False
        chunks = self._hidden(tokens, chunk_tokens, on_route)
        return np.concatenate([self._model.logits(hidden) for hidden in chunks])

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

        ``stop`` is asked before each layer of ``tokens``, and can break their pass off;
        ``breakers`` as in ``Sampler``.

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
        step = Stepping(self, self._drafts, on_route)
        produced = 0
        while max_tokens is None or produced < max_tokens:
            token = sampler.sample(logits, self.tokens)
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
            logits = step.after(token, min(most, left) - 1)
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

    def reusable(self, length: int) -> int:
        """How many of the first ``length`` tokens ``truncate`` can keep without running them again.

        All, or where a recurrent state would have to be taken back, those up to a copy of it.
        """
        return self._cache.nearest(length, torn=self._torn)

    def truncate(self, length: int) -> None:
        """Forget all tokens from position ``length`` on.

        Where a recurrent state cannot be taken back so far, what is missing is run again.

        Raises:
            ValueError: there are fewer.
        """
        if not 0 <= length <= len(self.tokens):
            raise ValueError(f"cannot truncate {len(self.tokens)} cached positions to {length}")
        del self.tokens[length:]
        if self.further is not None:
            self.further.truncate(length)
        if self._torn or self.reusable(length) < length:
            self._run_again()
        else:
            self._cache.truncate(length)

    def adopt(self, tokens: Sequence[int], cache: Cache) -> None:
        """Go on from a cache that holds these tokens, in the place of what there is."""
        self._cache, self.tokens, self._torn = cache, list(tokens[: cache.length]), False
        if self.further is not None:
            self.further.truncate(0)

    @property
    def cache(self) -> Cache:
        """What is remembered of ``tokens``; not to be written to."""
        self._catch_up()
        return self._cache

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
            self.tokens.extend(again)
            raise
        del self.tokens[-len(tokens) :]
        self.passes -= 1
        return self._model.logits(hidden[len(again) :])

    def own(self, token: int) -> None:
        """The next of the tokens that were run ahead is one of the timeline."""
        self.tokens.append(token)
        self.passes += 1

    @property
    def ahead(self) -> int:
        """How many tokens the cache holds that are not in ``tokens``; less than 0, how many not."""
        return self._cache.length - len(self.tokens)

    def take_back(self) -> None:
        """Forget what was run ahead and is not in ``tokens``.

        Where a recurrent state cannot be taken back so far, the next pass runs what is missing.
        """
        if self.ahead > 0:
            self._cache.truncate(self.reusable(len(self.tokens)))
            if self.further is not None:
                self.further.truncate(len(self.tokens))
        self._cache.unmark(self._mark)
        self._mark = 0

    def _prefill(
        self,
        tokens: Sequence[int],
        on_route: RouteObserver | None,
        stop: Callable[[], bool] | None,
    ) -> NDArray[np.float32]:
        """Append tokens and return the logits of the last alone: (V,)."""
        *_, hidden = self._hidden(tokens, CHUNK_TOKENS, on_route, stop, last_alone=True)
        if not self.decoding:
            self._cache.keep_state()  # where another answer may begin
        logits: NDArray[np.float32] = self._model.logits(hidden[-1:])[0]
        return logits

    def _hidden(
        self,
        tokens: Sequence[int],
        chunk_tokens: int,
        on_route: RouteObserver | None,
        stop: Callable[[], bool] | None = None,
        *,
        last_alone: bool = False,
    ) -> Iterator[Array]:
        """Hidden states chunk by chunk, once it is sure that all tokens are good and fit.

        With ``last_alone``, those of all chunks but the last may be anything.
        """
        end = len(self.tokens) + len(tokens)
        for ids, under_way in self._passes(tokens, chunk_tokens, on_route):
            if last_alone:
                under_way.fill_caches(but_last=len(self.tokens) + len(ids) == end)
            for _ in self._steps(ids, under_way, stop):
                pass
            yield from under_way.hidden

    def _passes(
        self, tokens: Sequence[int], chunk_tokens: int, on_route: RouteObserver | None
    ) -> Iterator[tuple[NDArray[np.int32], Pass]]:
        """Begin the passes that tokens take, each to be run to its end before the next is asked."""
        ids = np.asarray(tokens, np.int32)
        vocab_size = self._model.config.vocab_size
        if ids.size == 0:
            raise ValueError("no tokens to run; at least one is needed")
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise ValueError(f"token ids must lie in 0 to {vocab_size - 1}")
        if len(self.tokens) + len(ids) > self._cache.capacity:
            raise ContextLengthError(_too_long(len(ids), len(self.tokens), self._cache.capacity))
        self._catch_up()
        most = self._most_rows(chunk_tokens, on_route)
        for start in range(0, len(ids), most):
            some = ids[start : start + most]
            yield some, self._begin(some, chunk_tokens, on_route)

    def _most_rows(self, chunk_tokens: int, on_route: RouteObserver | None) -> int:
        streaming, config = self._streaming(), self._model.config
        return pass_tokens(streaming, config, chunk_tokens, listens=on_route is not None)

    def _begin(
        self, ids: NDArray[np.int32], chunk_tokens: int, on_route: RouteObserver | None
    ) -> Pass:
        """Begin a pass on top of what the cache holds."""
        chunks = cut(
            self._model.backend, [(self._cache, len(ids))], chunk_tokens, on_route, self._mark
        )
        kv_bytes = self._cache.caches.n_bytes
        return begin_pass(self._streaming(), self._model, kv_bytes, ids, chunks)

    def _steps(
        self, ids: NDArray[np.int32], under_way: Pass, stop: Callable[[], bool] | None
    ) -> Iterator[None]:
        """Run a pass, and yield after each step of it.

        Raises:
            BrokenOff: ``stop`` said so; nothing was appended.
        """
        self._torn = not self._cache.can_rewind
        try:
            while True:
                if stop is not None and stop():
                    raise BrokenOff
                if under_way.advance():
                    break
                yield
        finally:
            end_pass(self._streaming(), self._model, under_way)
        try:
            self._check_file()
        except BaseException:
            self._cache.length -= len(ids)  # which holds what was not there
            raise
        self.passes += 1
        # Before the caller does anything with it: the cache has them, whatever happens there.
        self.tokens.extend(ids.tolist())
        self._torn = False
        if self.further is not None:
            self.further.saw(self.tokens, len(self.tokens) - len(ids), under_way.hidden)
        yield

    def _catch_up(self) -> None:
        """See that the cache holds ``tokens`` and nothing else."""
        if self.ahead > 0:
            self.take_back()
        if self._torn or self.ahead:
            self._run_again()

    def _run_again(self) -> None:
        """Make the cache what ``tokens`` say, from the last copy of its states on."""
        tokens, kept = self.tokens, self.reusable(len(self.tokens))
        self._cache.truncate(kept)
        self.tokens, self._torn = tokens[:kept], False
        try:
            for _ in self._hidden(tokens[kept:], CHUNK_TOKENS, None) if tokens[kept:] else ():
                pass
        except BaseException:
            self.tokens, self._torn = tokens, True
            raise


def _too_long(new: int, before: int, capacity: int) -> str:
    """Say what does not fit, and in which context it would."""
    needed = 1 << (new + before).bit_length()
    if not before:
        return (
            f"The prompt has {new:,} tokens and the context holds {capacity:,}. Use -c {needed} or "
            "more, or shorten the prompt."
        )
    return (
        f"The conversation has {before:,} tokens, the new text {new:,}, and the context holds "
        f"{capacity:,}. Use -c {needed} or more, or shorten it."
    )
