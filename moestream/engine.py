"""A loaded model and the token timelines that run on it.

Knows nothing of text: token ids go in, token ids and statistics come out.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, Backend, open_backend
from moestream.errors import ContextLengthError
from moestream.gguf import GGUFFile
from moestream.layers.kv_cache import KVCache, KVType
from moestream.layers.moe import RouteObserver
from moestream.models import Decoder, ModelConfig, load_model
from moestream.sampling import Sampler, SamplingParams

StopReason = Literal["end", "length", "context"]

_DEFAULT_CONTEXT = 8192
_CHUNK_TOKENS = 512
"""Tokens prefilled at once: long enough to use an expert's weights many times."""


@dataclass(slots=True)
class Stats:
    """Counts and times of one session; speeds are derived."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    prompt_s: float = 0.0
    generation_s: float = 0.0
    ttft_s: float = 0.0

    @property
    def prompt_tps(self) -> float:
        """Prompt tokens a second."""
        return self.prompt_tokens / self.prompt_s if self.prompt_s else 0.0

    @property
    def generation_tps(self) -> float:
        """Generated tokens a second, the first (which prefill made) not counted."""
        steps = self.generated_tokens - 1
        return steps / self.generation_s if steps > 0 and self.generation_s else 0.0


class Engine:
    """A model file opened on a backend. A context manager; ``close`` unmaps the file."""

    def __init__(
        self, file: GGUFFile, model: Decoder, backend: Backend, context_length: int, kv_type: KVType
    ) -> None:
        self.file = file
        self.model = model
        self.backend = backend
        self.context_length = context_length
        self.kv_type: KVType = kv_type
        self.load_s = 0.0

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        backend: str = "auto",
        context_length: int | None = None,
        kv_type: KVType = "f16",
    ) -> "Engine":
        """Map a GGUF file and make its dense weights ready.

        Args:
            path: the file, or the first of its shards.
            backend: ``auto``, or one of ``moestream.backends.BACKENDS``.
            context_length: tokens a session can hold; by default the model's own, at most 8192.
            kv_type: how keys and values are stored, ``f16`` or ``f32``.

        Raises:
            ModelFormatError, UnsupportedModelError, UnsupportedQuantError: see ``errors``.
        """
        started = time.perf_counter()
        maths = open_backend(backend)
        file = GGUFFile.open(path)
        try:
            model = load_model(file, maths)
        except BaseException:
            file.close()
            raise
        context = context_length or min(model.config.context_length, _DEFAULT_CONTEXT)
        engine = cls(file, model, maths, context, kv_type)
        engine.load_s = time.perf_counter() - started
        return engine

    @property
    def config(self) -> ModelConfig:
        """The model's dimensions."""
        return self.model.config

    def session(self) -> "Session":
        """Start an empty token timeline."""
        return Session(self)

    def close(self) -> None:
        """Unmap the file; the engine's sessions are of no more use."""
        self.file.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Session:
    """One token timeline: its KV cache, the tokens in it, and what it cost."""

    def __init__(self, engine: Engine) -> None:
        config = engine.config
        self.engine = engine
        self.tokens: list[int] = []
        self.stats = Stats()
        self.stop_reason: StopReason | None = None
        self._cache = KVCache(
            engine.backend,
            num_layers=config.num_layers,
            num_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            capacity=engine.context_length,
            kv_type=engine.kv_type,
        )

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
        model = self.engine.model
        chunks = self._hidden(tokens, chunk_tokens, on_route)
        return np.concatenate([model.logits(hidden) for hidden in chunks])

    def generate(
        self,
        tokens: Sequence[int],
        params: SamplingParams | None = None,
        *,
        max_tokens: int | None = None,
        end_ids: frozenset[int] = frozenset(),
    ) -> Iterator[int]:
        """Append ``tokens``, then yield new ones until an end id, a limit, or the caller stops.

        An end id is not yielded. ``stop_reason`` tells why it ended, ``stats`` what it took.

        Raises:
            ContextLengthError: the prompt does not fit; nothing was appended.
            ValueError: an empty prompt, or an id outside the vocabulary.
        """
        self.stop_reason = None
        sampler = Sampler(params or SamplingParams())
        started = time.perf_counter()
        logits = self._prefill(tokens)
        prefilled = time.perf_counter()
        self.stats.prompt_tokens += len(tokens)
        self.stats.prompt_s += prefilled - started
        produced = 0
        while True:
            if max_tokens is not None and produced >= max_tokens:
                self.stop_reason = "length"
                return
            token = sampler.sample(logits, self.tokens)
            if produced == 0:
                self.stats.ttft_s = time.perf_counter() - started
            if token in end_ids:
                self.stop_reason = "end"
                return
            produced += 1
            self.stats.generated_tokens += 1
            yield token
            if len(self.tokens) >= self._cache.capacity:
                self.stop_reason = "context"
                return
            stepped = time.perf_counter()
            logits = self._prefill([token])
            self.stats.generation_s += time.perf_counter() - stepped

    def truncate(self, length: int) -> None:
        """Forget all tokens from position ``length`` on."""
        self._cache.truncate(length)
        del self.tokens[length:]

    def _prefill(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens and return the logits of the last alone: (V,)."""
        *_, hidden = self._hidden(tokens, _CHUNK_TOKENS, None)
        logits: NDArray[np.float32] = self.engine.model.logits(hidden[-1:])[0]
        return logits

    def _hidden(
        self, tokens: Sequence[int], chunk_tokens: int, on_route: RouteObserver | None
    ) -> Iterator[Array]:
        """Hidden states chunk by chunk, once it is sure that all tokens are good and fit."""
        ids = np.asarray(tokens, np.int32)
        vocab_size = self.engine.config.vocab_size
        if ids.size == 0:
            raise ValueError("no tokens to run; at least one is needed")
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise ValueError(f"token ids must lie in 0 to {vocab_size - 1}")
        if len(self.tokens) + len(ids) > self._cache.capacity:
            raise ContextLengthError(
                f"{len(ids)} tokens on top of {len(self.tokens)} do not fit in a context of "
                f"{self._cache.capacity}; shorten the input or ask for a larger context"
            )
        for start in range(0, len(ids), chunk_tokens):
            chunk = ids[start : start + chunk_tokens]
            yield self.engine.model.hidden(chunk, self._cache, on_route)
            self.tokens.extend(chunk.tolist())
