"""Measures prefill and decode of an engine, as llama-bench does.

Owns what one repetition is and what is taken of it. Knows nothing of lists of settings, of cold
page caches, or of how results are shown.

A repetition is timed without sampling, as llama-bench's are. Unlike llama-bench's, its tokens are
text: a prompt is prose, and what is decoded is what the model says to it (sampled, with a seed of
the repetition's own). Which experts are asked for, and so how often they are in memory, is then
what it is in use; random tokens are routed to all experts alike.

Source: llama.cpp, tools/llama-bench, for the tests, their names and the warm-up.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Literal, NamedTuple

import numpy as np
import psutil

from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.engine.sampling import Sampler
from moestream.engine.session import Session
from moestream.ranks.coming import Away
from moestream.ranks.shared_engine import SharedEngine
from moestream.streaming.statistics import Counts
from moestream.tokenizer import Tokenizer

TokenSource = Literal["text", "random"]

WARM_UP_TOKENS = 32
"""Tokens decoded before the first repetition: streaming then has its experts in memory."""
_PLACES = 7
"""Different beginnings in the prose; repetitions go through them in turn."""


@dataclass(frozen=True, slots=True)
class Test:
    """A prompt of ``n_prompt`` tokens and ``n_gen`` decoded ones, after ``n_depth`` of context."""

    __test__ = False  # not pytest's

    n_prompt: int
    n_gen: int
    n_depth: int = 0

    @property
    def name(self) -> str:
        """As llama-bench writes it: ``pp512``, ``tg128 @ d1024``, ``pp512+tg128``."""
        parts = [f"pp{self.n_prompt}"] * bool(self.n_prompt)
        parts += [f"tg{self.n_gen}"] * bool(self.n_gen)
        return "+".join(parts) + (f" @ d{self.n_depth}" if self.n_depth else "")

    @property
    def n_tokens(self) -> int:
        """Tokens that are timed."""
        return self.n_prompt + self.n_gen

    @property
    def n_context(self) -> int:
        """Tokens that the session must hold."""
        return self.n_depth + self.n_tokens


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition. Counts and bytes are those of its timed part."""

    n_tokens: int
    elapsed_s: float
    step_s: tuple[float, ...]
    """Of each decoded token."""
    hits: int
    misses: int
    expert_bytes: int | None
    """Read by streaming; None where experts are mapped."""
    disk_bytes: int | None
    """That the disk gave this process, page faults included; None where the system does not say."""
    waits: int = 0
    """How often rows of other machines were waited for."""
    away_s: float = 0.0
    """What those computed meanwhile."""
    hop_s: float = 0.0
    """What the way there and back took besides."""

    @property
    def tps(self) -> float:
        """Tokens a second."""
        return self.n_tokens / self.elapsed_s


class Tokens:
    """Where the tokens of an engine's repetitions come from."""

    def __init__(self, engine: Engine, source: TokenSource) -> None:
        """Tokenise the prose, unless tokens are ``random``.

        Raises:
            UnsupportedModelError, ModelFormatError: the file has no tokenizer that can be used.
        """
        self._vocab_size = engine.config.vocab_size
        self._prose: list[int] | None = None
        if source == "text":
            text = (files("moestream.bench") / "prose.txt").read_text(encoding="utf-8")
            self._prose = Tokenizer.from_gguf(engine.file).encode(text)

    def prompt(self, repetition: int, length: int) -> list[int]:
        """So many tokens; each repetition begins elsewhere."""
        if self._prose is None:
            random = np.random.default_rng(repetition)
            return [int(token) for token in random.integers(0, self._vocab_size, length)]
        start = len(self._prose) * (repetition % _PLACES) // _PLACES
        return [self._prose[(start + n) % len(self._prose)] for n in range(length)]

    def chooser(self, repetition: int) -> Callable[[np.ndarray, Sequence[int]], int]:
        """What picks the next token from logits (V,) and the tokens before it."""
        if self._prose is None:
            random = np.random.default_rng(repetition + 1)
            return lambda logits, history: int(random.integers(0, self._vocab_size))
        return Sampler(SamplingParams(seed=repetition)).sample


def warm_up(engine: Engine, test: Test, tokens: Tokens) -> None:
    """Run a test's prompt and some decoding, so that what a first run costs is paid."""
    shorter = Test(test.n_prompt, min(test.n_gen, WARM_UP_TOKENS), test.n_depth)
    run(engine, shorter, tokens, _PLACES - 1)


def run(engine: Engine, test: Test, tokens: Tokens, repetition: int) -> Sample:
    """Make the context, then time the test in it."""
    session = engine.session()
    prompt = tokens.prompt(repetition, test.n_depth + test.n_prompt + 1)
    if test.n_depth:
        _prefill(session, prompt[: test.n_depth])
    before, disk, away = _counts(engine), _disk_bytes(), replace(_away(engine))
    elapsed_s = 0.0
    if test.n_prompt:
        started = time.perf_counter()
        _prefill(session, prompt[test.n_depth : -1])
        elapsed_s = time.perf_counter() - started
    step_s = _decode(session, prompt[-1], test.n_gen, tokens.chooser(repetition))
    after, disk_now, now = _counts(engine), _disk_bytes(), _away(engine)
    busy_s = now.busy_s - away.busy_s
    return Sample(
        n_tokens=test.n_tokens,
        elapsed_s=elapsed_s + sum(step_s),
        step_s=tuple(step_s),
        hits=after.hits - before.hits,
        misses=after.misses - before.misses,
        expert_bytes=None if engine.streaming is None else after.n_bytes - before.n_bytes,
        disk_bytes=None if disk is None or disk_now is None else disk_now - disk,
        waits=now.waits - away.waits,
        away_s=busy_s,
        hop_s=now.waited_s - away.waited_s - busy_s,
    )


def _prefill(session: Session, tokens: list[int]) -> None:
    """Append a prompt, with the logits of its last token alone."""
    next(session.generate(tokens, SamplingParams(temperature=0.0), max_tokens=1))


def _decode(
    session: Session,
    first: int,
    n_tokens: int,
    choose: Callable[[np.ndarray, Sequence[int]], int],
) -> list[float]:
    """Run tokens one by one, ``first`` and then what is chosen; return the seconds of each."""
    step_s: list[float] = []
    token = first
    for _ in range(n_tokens):
        started = time.perf_counter()
        logits = session.forward([token])[0]
        step_s.append(time.perf_counter() - started)
        token = choose(logits, session.tokens)
    return step_s


class _Counted(NamedTuple):
    hits: int
    misses: int
    n_bytes: int


def _counts(engine: Engine) -> _Counted:
    if engine.streaming is None:
        return _Counted(0, 0, 0)
    stats = engine.streaming.stats()
    phases: tuple[Counts, ...] = (stats.decode, stats.prefill)
    return _Counted(sum(p.hits for p in phases), sum(p.misses for p in phases), stats.read_bytes)


def _away(engine: Engine) -> Away:
    return engine.away if isinstance(engine, SharedEngine) else Away()


def _disk_bytes() -> int | None:
    process = psutil.Process()
    counters = getattr(process, "io_counters", None)  # macOS has none
    return None if counters is None else int(counters().read_bytes)
