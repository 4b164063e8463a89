"""A model whose experts are streamed in a test: how it is opened, divided and run."""

import functools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.engine.engine import Engine
from moestream.profiles import Fingerprint, Profile
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions

GOLDEN = Path(__file__).parent / "data" / "golden"
NAMES = (
    "qwen3moe",
    "mixtral-q8_0",
    "qwen2moe",
    "olmoe-q4_1",
    "gpt-oss-mxfp4",
    "minimax-m2",
    "gemma4",
    "ernie4_5-moe-mxfp4",
    "granitemoe",
    "hunyuan-moe",
    "phimoe-q4_1",
    "deepseek2-v2-q5_0",
)
PROMPT, END = 28, 40


def plan(experts_bytes: int) -> MemoryPlan:
    return MemoryPlan(1 << 30, 0, 1 << 20, 0, experts_bytes, 1, 1)


def open_engine(name: str, backend: str = "reference") -> Engine:
    return Engine.open(GOLDEN / f"{name}.gguf", backend=backend, context_length=128)


def options_of(**changes) -> StreamingOptions:
    return StreamingOptions(**changes)


def always_guess(engine: Engine) -> None:
    """Have guesses made whether they pay or not: so few tokens of small layers tell nothing."""
    if engine.streaming.prefetcher is not None:
        engine.streaming.prefetcher.tries_without = False


def logits(engine: Engine) -> np.ndarray:
    """Of ``sample_tokens``: a prompt in two chunks, then token by token."""
    session, tokens = engine.session(), sample_tokens()
    out = [session.forward(tokens[:PROMPT], chunk_tokens=18)]
    out += [session.forward([token]) for token in tokens[PROMPT:END]]
    return np.concatenate(out)


@functools.cache
def resident_logits(name: str, backend: str) -> np.ndarray:
    """What the model says with all in memory, to ``sample_tokens``."""
    with open_engine(name, backend) as engine:
        return logits(engine)


@functools.cache
def sample_tokens() -> list[int]:
    """Tokens that all of the models know."""
    with np.load(GOLDEN / "llama.npz") as arrays:
        return arrays["tokens"].tolist()


def made_up(engine: Engine) -> Profile:
    """A profile of the model with counts of no workload."""
    fingerprint = Fingerprint.of(engine.file)
    shape = len(fingerprint.expert_bytes), fingerprint.num_experts
    counts = np.random.default_rng(3).integers(0, 50, shape)
    return Profile("made-up", "", fingerprint, 100, counts, counts.astype(float))


def count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())
