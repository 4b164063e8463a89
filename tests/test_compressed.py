"""Attention to a window and to compressed rows: by formulas, beside llama.cpp, the same bits."""

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from kv_held import Held
from streamed import GOLDEN

from golden.files import tokens as text
from moestream.backends import Routing
from moestream.backends.compressed import Stretches, attend_compressed, pool
from moestream.backends.cpu import CpuBackend
from moestream.backends.kv_blocks import put_rows, rows_between
from moestream.backends.reference import ReferenceBackend
from moestream.backends.types import AttentionRule, IndexQueries
from moestream.engine.engine import Engine
from moestream.gguf import GGUFFile
from moestream.layers.cache import state_bytes
from moestream.models import read_config
from oracle.logit_stats import kl_divergence, log_softmax

LONG = 300
"""Two stretches of 128 end in so many, and the cache has a second block."""
REFERENCE = ReferenceBackend()


def open_engine(backend: str, **options) -> Engine:
    types = {"cache_type_k": "f32", "cache_type_v": "f32"}
    return Engine.open(GOLDEN / "deepseek4.gguf", backend=backend, **types, **options)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_text_with_long_stretches_is_as_llama_cpp_has_it(backend: str) -> None:
    with np.load(GOLDEN / "deepseek4.npz") as arrays:
        theirs = log_softmax(arrays["long"])
    with open_engine(backend) as engine:
        ours = engine.session().forward(np.array(text(LONG)))[::3]
    kl = kl_divergence(theirs, log_softmax(ours))
    assert kl.max() < 1e-6
    np.testing.assert_array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_of_it_give_the_same_bits(chunk: int) -> None:
    tokens = np.array(text(LONG))
    with open_engine("cpu") as engine:
        whole = engine.session().forward(tokens)
        parts = engine.session().forward(tokens, chunk_tokens=chunk)
    np.testing.assert_array_equal(parts, whole)


def test_two_sequences_and_one_that_goes_back_give_the_same_bits() -> None:
    tokens = np.array(text(LONG))
    with open_engine("cpu") as engine:
        whole = engine.session().forward(tokens)
        first, second = engine.session(), engine.session()
        first.forward(tokens[:290])
        second.forward(tokens[:131])
        np.testing.assert_array_equal(first.forward(tokens[290:]), whole[290:])
        np.testing.assert_array_equal(second.forward(tokens[131:]), whole[131:])


@pytest.mark.parametrize("overlap", [False, True])
def test_a_stretchs_row_is_a_sum_by_scores(overlap: bool) -> None:
    rng = np.random.default_rng(3)
    rule = Stretches(4, 3, overlap=overlap)
    width = 3 * (1 + overlap)
    values, scores = rng.standard_normal((2, 22, width), np.float32)
    places = rng.standard_normal((4, width), np.float32)
    past = tuple(np.zeros((rule.reach, width), np.float32) for _ in range(2))
    found = np.concatenate(
        [
            pool(values[a:b], scores[a:b], past, places, a, rule)
            for a, b in ((0, 3), (3, 4), (4, 17), (17, 22))
        ]
    )
    for position in range(22):
        if position % 4 != 3:
            assert not found[position].any()
            continue
        own = range(position - 3, position + 1)
        rows = [(values[p, -3:], scores[p, -3:] + places[p % 4, -3:]) for p in own]
        if overlap and position > 3:
            rows += [
                (values[p, :3], scores[p, :3] + places[p % 4, :3])
                for p in range(position - 7, position - 3)
            ]
        shares = np.exp([score for _, score in rows])
        expected = (shares * [value for value, _ in rows]).sum(0) / shares.sum(0)
        np.testing.assert_allclose(found[position], expected, rtol=1e-5)


def test_rows_of_a_window_and_of_chosen_stretches_are_attended_to() -> None:
    rng = np.random.default_rng(4)
    q, rows = (rng.standard_normal(shape, np.float32) for shape in ((1, 2, 3), (12, 3 + 3 + 2)))
    index = IndexQueries(
        rng.standard_normal((1, 5, 2), np.float32), rng.standard_normal((1, 5), np.float32), 1
    )
    sinks = np.array([0.5, -1], np.float32)
    rule = AttentionRule(0.7, 4, sinks, value_dim=3)
    seen = [(0, 12, 1), (2, 12, 3)]

    def read(first: int, stop: int, step: int) -> np.ndarray:
        assert (first, stop, step) in [(8, 12, 1), *seen[1:]]
        return rows[first:stop:step]

    out = attend_compressed(q, read, 11, rule, Stretches(3, 3), index)
    ends = rows[2::3]
    scores = index.weights[0] @ np.maximum(index.queries[0] @ ends[:, 6:].T, 0)
    attended = np.concatenate([rows[8:, :3], ends[[scores.argmax()], 3:6]])
    for head in range(2):
        shares = np.exp(np.append(attended @ q[0, head] * 0.7, sinks[head]))
        expected = shares[:-1] @ attended / shares.sum()
        np.testing.assert_allclose(out.reshape(2, 3)[head], expected, rtol=1e-5)


@pytest.mark.parametrize("step", [1, 4, 128])
def test_rows_of_several_blocks_are_read_in_order(step: int) -> None:
    held = Held(1, 0, (6, 0))
    rows = np.random.default_rng(1).standard_normal((600, 1, 6), np.float32)
    held.store.reserve(600, 0)
    place = held.store.stores.layers[1][0]
    put_rows(held.store, place, rows, 0)
    for first, stop in ((step - 1, 600), (step - 1, 256), (step - 1 + 2 * step, 515), (step, step)):
        found = rows_between(held.store, place, first, stop, step)
        expected = rows[first:stop:step, 0].astype(np.float16 if place.kv_type == "f16" else None)
        np.testing.assert_array_equal(found, expected)


def test_what_a_layer_keeps_is_counted() -> None:
    with GGUFFile.open(GOLDEN / "deepseek4.gguf") as file:
        window, short, long = read_config(file).state_shapes()[:3]
    assert [shape.key_dim for shape in (window, short, long)] == [32, 32 + 32 + 64, 64]
    types = ("f32", "f32")
    assert state_bytes([window], 10, types) == 4 * 10 * 32
    assert state_bytes([long], 10, types) == 4 * (10 * 64 + 2 * 128 * 32)
    assert state_bytes([short], 10, types) == 4 * (10 * 128 + 2 * 8 * (64 + 128))


@pytest.mark.parametrize("gating", ["sigmoid", "sqrt_softplus"])
def test_experts_that_a_table_chooses_are_weighed_as_a_router_would(gating: str) -> None:
    logits = np.random.default_rng(2).standard_normal((9, 16), np.float32) * 8
    rule = Routing(3, normalise=True, gating=gating, scale=1.7)
    for ops in (REFERENCE, CpuBackend(1)):
        ids, weights = ops.route(logits, rule)
        again, weighed = ops.weigh(logits, ids[:, ::-1].copy(), rule)
        np.testing.assert_array_equal(again, ids[:, ::-1])
        np.testing.assert_allclose(weighed, weights[:, ::-1], rtol=1e-5)
        gated = (
            1 / (1 + np.exp(-logits)) if gating == "sigmoid" else np.sqrt(np.logaddexp(0, logits))
        )
        chosen = np.take_along_axis(gated, ids, axis=1)
        expected = chosen / chosen.sum(axis=1, keepdims=True) * 1.7
        np.testing.assert_allclose(weights, expected, rtol=1e-4)
