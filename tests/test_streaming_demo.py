"""The demo model gives the same tokens and the same logits, bit for bit, however it is streamed."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.demo import demo_path
from moestream.engine.engine import Engine
from moestream.engine.options import SamplingParams
from moestream.engine.sampling import Sampler
from moestream.profiles import Fingerprint, Profile
from moestream.streaming.options import StreamingOptions

PROMPT = "0 1 2 3 5 8 13 21 34 55 89 144 233 377 610 987 1597 2584 4181 6765 10946 17711 28657"
TOKENS = 64
PARAMS = {
    "greedy": SamplingParams(temperature=0.0),
    "sampled": SamplingParams(temperature=0.8, seed=7),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not demo_path().exists(),
        reason=f"no demo model at {demo_path()}: build it with `moestream inspect demo`",
    ),
]

CASES = [
    # Share of all experts (0: not even one token's), threads, options.
    (0.0, 2, {"io": "direct"}),
    (0.0, 1, {"io": "pread", "prefetch": False}),
    (0.0, 2, {"io": "madvise"}),
    (0.1, 2, {"io": "pread", "policy": "lru"}),
    (0.1, 1, {"io": "direct", "policy": "blend", "prefetch_layers": 3}),
    (0.25, 2, {"io": "direct", "policy": "lfu"}),
    (0.25, 2, {"io": "direct", "policy": "random"}),
    (0.25, 2, {"io": "direct", "policy": "arc", "prefetch": False}),
    (0.25, 1, {"io": "direct", "policy": "lcp"}),
    (0.25, 2, {"io": "pread", "policy": "lfru"}),
    (0.25, 2, {"io": "direct", "policy": "decay", "window": 16}),
    (0.1, 2, {"io": "direct", "layer_budget": "uniform", "prefetch_mass": 0.3}),
    (0.25, 2, {"io": "direct", "layer_budget": "adaptive"}),
    (0.25, 1, {"io": "pread", "policy": "lcp", "layer_budget": "adaptive"}),
    (0.25, 2, {"io": "direct", "policy": "arc", "layer_budget": "shallow", "prefetch_mass": 1.0}),
    (0.25, 2, {"io": "madvise", "layer_budget": "adaptive", "prefetch_mass": 0.3}),
    (0.25, 2, {"io": "madvise", "pin": "mlock", "prefetch_layers": 2}),
    (0.25, 2, {"io": "madvise", "pin": "none", "prefetch": False}),
    (0.6, 1, {}),
    (2.0, 2, {"pin": "copy"}),
    (2.0, 1, {}),
    (0.25, 2, {"io": "direct", "warm": True}),
    (0.0, 1, {"io": "direct", "split": 0.3}),
    (0.25, 2, {"io": "direct", "split": 0.75, "warm": True}),
    (0.25, 1, {"io": "pread", "split": 0.5, "policy": "lcp", "prefetch": False}),
    (0.25, 2, {"split": "auto", "layer_budget": "adaptive"}),
    (0.6, 1, {"io": "madvise", "pin": "mlock", "warm": True}),
    (2.0, 2, {"warm": True}),
]


def run(engine: Engine, params: SamplingParams) -> tuple[list[int], np.ndarray]:
    """Tokens, and the logits that each was chosen by."""
    session, sampler = engine.session(), Sampler(params)
    given = [ord(letter) for letter in PROMPT]  # any ids will do
    rows = [session.forward(given, chunk_tokens=40)[-1]]
    tokens: list[int] = []
    while True:
        tokens.append(sampler.sample(rows[-1], [*given, *tokens]))
        if len(tokens) == TOKENS:
            return tokens, np.stack(rows)
        rows.append(session.forward(tokens[-1:])[-1])


def open_demo(threads: int) -> Engine:
    return Engine.open(demo_path(), backend="cpu", threads=threads, context_length=256)


@pytest.fixture(scope="module")
def resident() -> dict[str, tuple[list[int], np.ndarray]]:
    with open_demo(2) as engine:
        return {name: run(engine, params) for name, params in PARAMS.items()}


def test_one_thread_computes_the_same(resident):
    with open_demo(1) as engine:
        np.testing.assert_array_equal(run(engine, PARAMS["sampled"])[1], resident["sampled"][1])


def test_the_two_ways_differ(resident):
    assert resident["greedy"][0] != resident["sampled"][0]


def made_up(engine: Engine) -> Profile:
    fingerprint = Fingerprint.of(engine.file)
    shape = len(fingerprint.expert_bytes), fingerprint.num_experts
    counts = np.random.default_rng(3).integers(0, 50, shape)
    return Profile("made-up", "", fingerprint, 100, counts, counts.astype(float))


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: str(CASES[number]))
def test_same_tokens_and_logits(number, resident):
    """Each fourth serves another session, which begins with what the first left in memory."""
    share, threads, options = CASES[number]
    with open_demo(threads) as engine:
        plan = engine.plan_memory("100%")
        plan = replace(plan, experts_bytes=int(share * plan.total_expert_bytes))
        options = dict(options)
        profile = made_up(engine) if options.pop("warm", False) else None
        engine.stream(plan, StreamingOptions(**options), profile)
        for name in ("sampled", "greedy")[: 1 + (number % 4 == 0)]:
            tokens, logits = run(engine, PARAMS[name])
            assert tokens == resident[name][0]
            np.testing.assert_array_equal(logits, resident[name][1])
        # Mapped, what is missing is up to the page cache.
        may_fit = share > 1 or options.get("io") == "madvise"
        assert may_fit or engine.streaming.stats().decode.misses > 0
