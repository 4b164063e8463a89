"""Streaming changes where experts are read from and never what is computed."""

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import (
    GOLDEN,
    NAMES,
    always_guess,
    logits,
    made_up,
    open_engine,
    options_of,
    plan,
    resident_logits,
)

from moestream.choices import READ_METHODS
from moestream.engine.engine import Engine
from moestream.policies import POLICIES

EXPERTS_BYTES = (0, 1 << 14, 1 << 16, 1 << 17, 190_000, 1 << 18, 1 << 30)
"""From less than one token's experts to more than all; slots keep some from 190,000 on."""
BETWEEN = (1 << 14, 1 << 16, 1 << 18)


EVERY = [
    options_of(),
    *(options_of(io=io, pin=pin) for io in READ_METHODS for pin in ("auto", "none")),
    *(options_of(io="direct", policy=policy) for policy in POLICIES),
    options_of(io="direct", prefetch=False),
    *(options_of(io="direct", layer_budget=kind) for kind in ("uniform", "shallow", "adaptive")),
    options_of(io="madvise", layer_budget="adaptive", policy="arc"),
    options_of(io="pread", prefetch_layers=3),
    options_of(io="direct", prefetch_mass=0.9, layer_budget="shallow", policy="arc"),
    options_of(io="pread", prefetch_mass=1.0, prefetch_layers=2),
    options_of(io="madvise", prefetch_mass=0.5),
    options_of(io="madvise", prefetch_layers=3, window=4),
    *(options_of(io="direct", split=share) for share in (0.01, 0.5, 0.9)),
    options_of(io="pread", split=0.75, prefetch=False, policy="lru"),
    options_of(split="auto"),
    options_of(io="pread", split=0.4, prefetch_mass=1.0, prefetch_layers=2, layer_budget="shallow"),
    options_of(io="direct", split="auto", layer_budget="adaptive", policy="lcp"),
]


@pytest.mark.parametrize(
    "experts_bytes",
    [
        pytest.param(each, marks=pytest.mark.slow if each in BETWEEN else ())
        for each in EXPERTS_BYTES
    ],
)
@pytest.mark.parametrize("number", range(len(EVERY)), ids=lambda number: str(EVERY[number]))
def test_same_logits_bit_for_bit(number, experts_bytes):
    # Two models in turn, each with a backend of its own: all pairs, over the budgets and methods;
    # every other time with a profile.
    turn = number + EXPERTS_BYTES.index(experts_bytes)
    warm = turn % 2 == 1
    backends = ("cpu", "reference") if number // 2 % 2 else ("reference", "cpu")
    for name, backend in zip(NAMES[turn % 6 :: 6], backends, strict=True):
        with open_engine(name, backend) as engine:
            profile = made_up(engine) if warm else None
            engine.stream(plan(experts_bytes), EVERY[number], profile)
            always_guess(engine)
            np.testing.assert_array_equal(logits(engine), resident_logits(name, backend))


def test_budget_is_taken_by_open():
    path = GOLDEN / "qwen3moe.gguf"
    with Engine.open(path, backend="reference", context_length=128, budget="1M") as engine:
        np.testing.assert_array_equal(logits(engine), resident_logits("qwen3moe", "reference"))
        assert engine.streaming.plan == engine.plan  # no less for guesses: there is nothing left
        assert engine.plan.budget_bytes == 1 << 20
