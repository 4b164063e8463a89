"""Room for what guesses go by: it is the experts', and a plan tells of it."""

from dataclasses import replace

import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import open_engine

from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions
from moestream.streaming.remembered import _MOST_TOKENS, RememberedRouting

PLAN = MemoryPlan(1 << 20, 0, 1 << 20, 0, 1 << 20, 1, 1 << 30)


@pytest.mark.parametrize(("prefetch", "fits"), [(True, False), (False, False), (True, True)])
def test_guesses_take_their_room_from_the_experts(prefetch: bool, fits: bool) -> None:
    plan = replace(PLAN, budget_bytes=2 << 20, total_expert_bytes=1) if fits else PLAN
    assert plan.fits is fits
    with open_engine("qwen3moe", "cpu") as engine:
        engine.stream(plan, StreamingOptions(io="pread", prefetch=prefetch))
        moes = [layer.ffn for layer in engine.model.layers]
        routers = sum(moe.hidden_size * moe.num_experts for moe in moes) * 34 // 32
        remembered = _MOST_TOKENS * sum(2 * moe.num_experts_per_tok for moe in moes)
        taken = plan.experts_bytes - engine.streaming.plan.experts_bytes
        assert taken == (routers + remembered if prefetch and not fits else 0)


def test_what_is_remembered_takes_what_was_told() -> None:
    remembered = RememberedRouting([0, 1])
    remembered._make_table(3)
    assert remembered._table.nbytes == RememberedRouting.n_bytes([3, 3])
