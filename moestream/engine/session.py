"""One token timeline on a loaded model: prefill, generation, and what they took.

Knows nothing of text: token ids go in, token ids and statistics come out.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, Work
from moestream.engine.expert_streaming import ExpertStreaming
from moestream.engine.options import SamplingParams
from moestream.engine.sampling import Sampler
from moestream.errors import ContextLengthError
from moestream.layers.batch import Batch
from moestream.layers.cache import Caches
from moestream.layers.moe import RouteObserver
from moestream.models import Decoder
from moestream.models.decoder import BrokenOff
from moestream.streaming.statistics import ResidencyStats, Tally

StopReason = Literal["end", "length", "context", "interrupted"]

_CHUNK_TOKENS = 512
"""Tokens prefilled at once: long enough to use an expert's weights many times."""


@dataclass(slots=True)
class Stats:
    """Counts and times of one session; speeds are derived."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    prompt_s: float = 0.0
    generation_steps: int = 0
    generation_s: float = 0.0
    ttft_s: float = 0.0
    work: Work = field(default_factory=Work)
    """What the backend did in all generation steps, if it counts that."""

    @property
    def work_per_token(self) -> dict[str, float] | None:
        """The backend's work of a generation step on average; None if it counts none."""
        if not self.work.synchronisations:
            return None
        return {name: n / self.generation_steps for name, n in asdict(self.work).items()}

    @property
    def prompt_tps(self) -> float:
        """Prompt tokens a second."""
        return self.prompt_tokens / self.prompt_s if self.prompt_s else 0.0

    @property
    def generation_tps(self) -> float:
        """Tokens decoded a second: an end token counts, the first, which prefill made, does not."""
        return self.generation_steps / self.generation_s if self.generation_s else 0.0


class Session:
    """One token timeline: its KV cache, the tokens in it, and what it cost."""

    def __init__(
        self,
        model: Decoder,
        *,
        caches: Caches,
        streaming: Callable[[], ExpertStreaming | None],
        check_file: Callable[[], None],
    ) -> None:
        """Start empty.

        ``streaming`` is asked before each pass whether experts are streamed by now; ``check_file``
        makes sure of its results after it.
        """
        self._model = model
        self._streaming = streaming
        self._check_file = check_file
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

    def forward(
        self,
        tokens: Sequence[int],
        *,
        chunk_tokens: int = _CHUNK_TOKENS,
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
        on_route: RouteObserver | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[int]:
        """Append ``tokens``, then yield new ones until an end id, a limit, or the caller stops.

        ``stop`` is asked before each layer of ``tokens``, and can break their pass off.

        An end id is not yielded. ``stop_reason`` tells why it ended, ``stats`` what it took. A
        last token that nothing had to follow is not in ``tokens``: it was never run.

        Raises:
            ContextLengthError: the prompt does not fit; nothing was appended.
            ValueError: an empty prompt, or an id outside the vocabulary.
        """
        self.stop_reason = None
        self.decoding = False
        sampler = Sampler(params or SamplingParams())
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
            logits = self._prefill([token], on_route, None)
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
        """Append tokens, all but the last chunk, and yield after each chunk how many were.

        For a long prompt of which ``generate`` then gets the rest: between two chunks the caller
        can tell how far it is. ``stop`` is asked before each layer, and ends it there: tokens of a
        chunk that was broken off were not appended.

        Raises:
            ContextLengthError, ValueError: as ``generate``.
        """
        self.decoding = False
        whole = max(len(tokens) - 1, 0) // _CHUNK_TOKENS * _CHUNK_TOKENS
        done, started = 0, time.perf_counter()
        chunks = self._hidden(tokens[:whole], _CHUNK_TOKENS, on_route, stop) if whole else ()
        with suppress(BrokenOff):
            for hidden in chunks:
                done += len(hidden)
                self.stats.prompt_tokens += len(hidden)
                self.stats.prompt_s += time.perf_counter() - started
                yield done
                started = time.perf_counter()

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

        All, or none where a recurrent state would have to be taken back.
        """
        kept = self._cache.can_rewind or (length == len(self.tokens) and not self._torn)
        return length if kept else 0

    def truncate(self, length: int) -> None:
        """Forget all tokens from position ``length`` on.

        Where a recurrent state cannot be taken back, those before are run again from the start.
        """
        if 0 < length <= len(self.tokens) and self.reusable(length) < length:
            del self.tokens[length:]
            self._run_again()
        else:
            self._cache.truncate(length)
            del self.tokens[length:]

    def _prefill(
        self,
        tokens: Sequence[int],
        on_route: RouteObserver | None,
        stop: Callable[[], bool] | None,
    ) -> NDArray[np.float32]:
        """Append tokens and return the logits of the last alone: (V,)."""
        *_, hidden = self._hidden(tokens, _CHUNK_TOKENS, on_route, stop)
        logits: NDArray[np.float32] = self._model.logits(hidden[-1:])[0]
        return logits

    def _hidden(
        self,
        tokens: Sequence[int],
        chunk_tokens: int,
        on_route: RouteObserver | None,
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[Array]:
        """Hidden states chunk by chunk, once it is sure that all tokens are good and fit."""
        ids = np.asarray(tokens, np.int32)
        vocab_size = self._model.config.vocab_size
        if ids.size == 0:
            raise ValueError("no tokens to run; at least one is needed")
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise ValueError(f"token ids must lie in 0 to {vocab_size - 1}")
        if len(self.tokens) + len(ids) > self._cache.capacity:
            raise ContextLengthError(_too_long(len(ids), len(self.tokens), self._cache.capacity))
        if self._torn:
            self._run_again()
        for start in range(0, len(ids), chunk_tokens):
            chunk = ids[start : start + chunk_tokens]
            self._torn = not self._cache.can_rewind
            hidden = self._pass(chunk, on_route, stop)
            # Before the caller does anything with it: the cache has them, whatever happens there.
            self.tokens.extend(chunk.tolist())
            self._torn = False
            yield hidden

    def _pass(
        self,
        chunk: NDArray[np.int32],
        on_route: RouteObserver | None,
        stop: Callable[[], bool] | None = None,
    ) -> Array:
        """Run a chunk on top of what the cache holds."""
        batch = Batch(self._model.backend, [(self._cache, len(chunk))])
        if (streaming := self._streaming()) is not None:
            streaming.before_pass(self._cache.caches.n_bytes)
        hidden = self._model.hidden(chunk, batch, on_route, stop)
        try:
            self._check_file()
        except BaseException:
            self._cache.length -= len(chunk)  # which holds what was not there
            raise
        self.passes += 1
        return hidden

    def _run_again(self) -> None:
        """Make the cache anew from ``tokens``."""
        self._torn = True
        self._cache.truncate(0)
        ids = np.asarray(self.tokens, np.int32)
        for start in range(0, len(ids), _CHUNK_TOKENS):
            self._pass(ids[start : start + _CHUNK_TOKENS], None)
        self._torn = False


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
