"""What streaming tells of itself: hits, bytes, contents, recall."""

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import (
    END,
    PROMPT,
    always_guess,
    logits,
    open_engine,
    options_of,
    plan,
    sample_tokens,
)

from moestream.choices import READ_METHODS
from moestream.engine.engine import Engine


def test_guesses_are_widened_where_the_router_is_unsure():
    with open_engine("qwen3moe", "cpu") as engine:
        moe, found = engine.model.layers[1].ffn, []
        engine.session().forward(sample_tokens()[:3], on_route=found.append)
        for row in range(3):
            x = found[0].x[row : row + 1]
            k, (ids, _) = moe.num_experts_per_tok, moe.norm_and_route(x)
            logits = engine.backend.linear(moe.norm(x), moe.router)[0].astype(float)
            falling = -np.sort(-np.exp(logits) / np.exp(logits).sum())
            for mass in (0.01, 0.4, 0.7, 1.0):
                guess = moe.foresee(x, mass, 2 * k)[0].tolist()
                needed = int((np.cumsum(falling) < mass).sum()) + 1
                assert len(guess) == min(max(needed, k), 2 * k)
                assert guess[:k] == ids[0].tolist()


def recall_of(engine: Engine) -> float:
    logits(engine)
    records = engine.streaming.stats().recall.values()
    return sum(r.predicted for r in records) / sum(r.routed for r in records)


def test_wider_guesses_foresee_more():
    found = []
    for mass in (None, 0.6, 1.0):
        with open_engine("qwen3moe", "cpu") as engine:
            engine.stream(plan(1 << 16), options_of(io="pread", prefetch_mass=mass))
            found.append(recall_of(engine))
    assert found[0] <= found[1] <= found[2]
    assert found[0] < found[2]


@pytest.mark.parametrize("io", READ_METHODS)
def test_statistics_add_up(io):
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 16), options_of(io=io))
        always_guess(engine)
        logits(engine)
        stats = engine.streaming.stats()
        layers, k = engine.config.num_layers, engine.config.num_experts_per_tok
        assert stats.decode.hits + stats.decode.misses == (END - PROMPT) * layers * k
        assert stats.prefill.turns == 2 * layers
        assert stats.useful_bytes + stats.wasted_bytes <= stats.speculative_bytes
        assert 0 <= stats.decode.late <= stats.decode.misses
        assert stats.pinned_bytes <= max(stats.budget_bytes, 1 << 16)
        assert list(stats.recall) == list(range(1, layers))
        assert stats.to_dict()["decode"]["hit_rate"] == stats.decode.hit_rate


def test_statistics_stay_as_they_were_when_taken():
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 16), options_of(io="pread"))
        session = engine.session()
        session.forward(sample_tokens()[:5])
        stats = engine.streaming.stats()
        before = stats.to_dict()
        session.forward(sample_tokens()[5:10])
        assert engine.streaming.stats().to_dict() != before
    assert stats.to_dict() == before


def test_all_resident_once_everything_fits():
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 30), options_of())
        logits(engine)
        misses = engine.streaming.stats().decode.misses
        logits(engine)
        assert engine.streaming.stats().decode.misses == misses


def test_sessions_tell_of_residency():
    with open_engine("qwen3moe") as engine:
        session = engine.session()
        assert session.residency is None
        engine.stream(plan(1 << 14), options_of())
        session.forward(sample_tokens()[:2])
        assert session.residency.prefill.turns == engine.config.num_layers


@pytest.mark.parametrize("io", READ_METHODS)
def test_events_tell_what_was_in_memory_when_the_layer_asked(io):
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 16), options_of(io=io))
        session = engine.session()
        events = []
        for token in sample_tokens()[:20]:
            session.forward([token], on_route=events.append)
        counts = engine.streaming.stats().decode
        resident = np.concatenate([event.resident for event in events])
        assert (resident.sum(), (~resident).sum()) == (counts.hits, counts.misses)
        assert io == "madvise" or counts.misses > 0


@pytest.mark.parametrize("split", [1.0, 0.5])
@pytest.mark.parametrize("io", READ_METHODS)
def test_contents_hold_the_hits_and_none_of_the_misses(io, split):
    with open_engine("qwen3moe") as engine:
        if io == "madvise" and split < 1:
            return
        engine.stream(plan(190_000), options_of(io=io, split=split))
        session, seen = engine.session(), []

        def look(event):
            contents = set(engine.streaming.residency.contents(event.layer))
            for expert, resident in zip(event.expert_ids[0], event.resident[0], strict=True):
                assert (int(expert) in contents) == resident
            seen.append(contents)

        for token in sample_tokens()[:20]:
            session.forward([token], on_route=look)
        assert io == "madvise" or max(map(len, seen)) > 0
