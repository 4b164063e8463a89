"""One token timeline on a loaded model: the tokens, what is remembered of them, passes on top.

Knows nothing of text, nor of how tokens are chosen.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array
from moestream.engine.drafts.mtp import Further
from moestream.engine.expert_streaming import ExpertStreaming
from moestream.engine.streamed_passes import begin_pass, end_pass, pass_tokens
from moestream.errors import ContextLengthError
from moestream.layers.batch import CHUNK_TOKENS, cut
from moestream.layers.cache import Cache, Caches
from moestream.layers.moe import ByLayer, RouteObserver
from moestream.models import Decoder
from moestream.models.passes import Pass


class BrokenOff(Exception):  # noqa: N818 - asked for, no error
    """A pass was broken off because its caller wished so."""


class Timeline:
    """Tokens and their KV cache, which can be gone on with and taken back."""

    def __init__(
        self,
        model: Decoder,
        caches: Caches,
        streaming: Callable[[], ExpertStreaming | None],
        check_file: Callable[[], None],
        further: Further | None,
    ) -> None:
        """Start empty; ``further`` follows the tokens, where guesses need that.

        ``streaming`` is asked before each pass whether experts are streamed by now; ``check_file``
        makes sure of its results after it.
        """
        self._model = model
        self._streaming = streaming
        self._check_file = check_file
        self.further = further
        self.tokens: list[int] = []
        self.passes = 0
        """Passes that were run to their end: what observers heard of others did not happen."""
        self.passes_begun = 0
        self.decoding = False
        """Whether the pass that runs, or ran last, is of a token that was made."""
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
            raise ContextLengthError.of(len(ids), len(self.tokens), self._cache.capacity)
        self._catch_up()
        most = self._most_rows(chunk_tokens, on_route)
        for start in range(0, len(ids), most):
            some = ids[start : start + most]
            yield some, self._begin(some, chunk_tokens, on_route)

    def _most_rows(self, chunk_tokens: int, on_route: RouteObserver | None) -> int:
        streaming, config = self._streaming(), self._model.config
        in_order = on_route is not None and not isinstance(on_route, ByLayer)
        return pass_tokens(streaming, config, chunk_tokens, in_order=in_order)

    def _begin(
        self, ids: NDArray[np.int32], chunk_tokens: int, on_route: RouteObserver | None
    ) -> Pass:
        """Begin a pass on top of what the cache holds."""
        chunks = cut(
            self._model.backend, [(self._cache, len(ids))], chunk_tokens, on_route, self._mark
        )
        kv_bytes = self._cache.caches.n_bytes
        self.passes_begun += 1
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
