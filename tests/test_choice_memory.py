"""What choosing among many positions takes for a moment is part of a budget."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kv_held import Held

from moestream.backends import AttentionRule, IndexQueries
from moestream.backends.compressed import attend_in_blocks
from moestream.backends.cpu import CpuBackend
from moestream.backends.kv_blocks import put_rows
from moestream.backends.sparse import choose_in_blocks
from moestream.backends.sparse_blocks import BestOfBlocks, GatedSums, TurnedMeans
from moestream.engine.engine import Engine
from moestream.forecast.demand import read_demand
from moestream.gguf import GGUFFile
from moestream.layers.batch import CHUNK_TOKENS
from moestream.layers.compressed_attention import CompressedSizes
from moestream.layers.indexer import IndexShape
from moestream.models import read_config
from moestream.streaming.options import StreamingOptions

GOLDEN = Path(__file__).parent / "data" / "golden"
SEEN = 8192


def peak_of(run) -> int:
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_rows_of_stretches_take_what_is_said():
    sizes = CompressedSizes(2, 64, 8, 1, 8, 16, IndexShape(4, 32, 64, "interleaved"))
    rule, index = sizes.stretches(4)
    width = sizes.dim + rule.dim + index.dim
    held = Held(1, 0, (width, 0), ("f32", "f32"))
    held.store.reserve(SEEN, 0)
    rng = np.random.default_rng(1)
    put_rows(
        held.store, held.store.stores.layers[1][0], np.zeros((SEEN - 1, 1, width), np.float32), 0
    )
    asked = IndexQueries(rng.random((1, 4, 32), np.float32), rng.random((1, 4), np.float32), 64)
    q, row = rng.random((1, 2, 64), np.float32), rng.random((1, 1, width), np.float32)
    shape, ops = AttentionRule(1.0, 16, None, value_dim=64), CpuBackend(1)
    parts = [(held.store, SEEN - 1, 1)]
    peak = peak_of(lambda: attend_in_blocks(q, row, parts, 1, shape, rule, asked, ops))
    said = sizes.read_bytes(4) // 4 * SEEN
    assert said / 2 < peak < said * 1.1


def turned(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((len(places), 8), np.float32), np.zeros((len(places), 8), np.float32)


WEIGHT = np.ones(128, np.float32)
CHOICES: dict[str, dict[str, object]] = {
    "deepseek32": {},
    "glm5-next": {"blocks": GatedSums(4, 128, np.zeros((4, 64), np.float32))},
    "qwen4exp": {"blocks": TurnedMeans(4, 128, WEIGHT, 1e-6, turned)},
    "minimax-m3": {"by_head": BestOfBlocks(64, 1)},
}
"""What chooses by the last 128 numbers of keys."""


@pytest.mark.parametrize("rows", [1, CHUNK_TOKENS])
@pytest.mark.parametrize("name", CHOICES)
def test_choosing_takes_what_is_said(name: str, rows: int) -> None:
    rng = np.random.default_rng(2)
    with GGUFFile.open(GOLDEN / f"{name}.gguf") as file:
        config = read_config(file)
    dim = 64 if name == "glm5-next" else 128
    config = replace(config, index=replace(config.index, dim=dim))
    asked = IndexQueries(
        rng.random((rows, config.index.heads, dim), np.float32),
        rng.random((rows, config.index.heads), np.float32),
        256,
        **CHOICES[name],
    )
    kv_heads = max(config.kv_heads)
    held = Held(kv_heads, 0, (576 + 128 // kv_heads, 8), ("f16", "f16"))
    held.store.reserve(SEEN, 0)
    k = rng.random((rows, kv_heads, 576 + 128 // kv_heads), np.float32)
    parts = [(held.store, SEEN - rows, rows)]
    peak = peak_of(lambda: choose_in_blocks(asked, k, parts, 1, CpuBackend(1)))
    unseen = (CHUNK_TOKENS - rows) * asked.choices  # of a chunk
    said = (config.choice_bytes - unseen) * SEEN
    assert said / 2 < peak < said * 1.1


@pytest.mark.parametrize(
    ("name", "least"), [("deepseek4", 1), ("minimax-m3", 2 * CHUNK_TOKENS), ("olmoe", 0)]
)
def test_plans_and_passes_leave_room_for_it(name: str, least: int) -> None:
    path = GOLDEN / f"{name}.gguf"
    with GGUFFile.open(path) as file:
        demand = read_demand(file)
    assert demand.choice_bytes >= least
    more = demand.context_bytes(1000) - demand.context_bytes(0)
    assert more == demand.kv_bytes * 1024 + demand.choice_bytes * 1000
    with Engine.open(path, backend="cpu", threads=1, context_length=128) as engine:
        assert engine.config.choice_bytes == demand.choice_bytes
        plan = engine.plan_memory("100M")
        assert plan.kv_bytes == engine.kv_bytes(128) + 128 * demand.choice_bytes
        engine.stream(plan, StreamingOptions())
        engine.session().forward(list(range(90)))
        assert engine.streaming is not None
        assert engine.streaming._kv_bytes >= engine.caches.n_bytes + 90 * demand.choice_bytes
