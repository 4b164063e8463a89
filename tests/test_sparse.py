"""Attention to chosen positions, and how they are chosen: against formulas, and the same bits."""

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from kv_held import Held
from native_blocks import ISAS
from streamed import GOLDEN, open_engine, sample_tokens

from moestream import _native
from moestream.backends import IndexQueries
from moestream.backends.cpu import CpuBackend
from moestream.backends.reference import ReferenceBackend
from moestream.backends.sparse import choose_positions
from moestream.backends.sparse_blocks import BestOfBlocks, choose_by_head
from moestream.backends.types import AttentionRule
from moestream.errors import ModelFormatError
from moestream.gguf import GGUFFile
from moestream.layers.indexer import check_turned
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights
from moestream.models import read_config

REFERENCE = ReferenceBackend()


def backend(monkeypatch: pytest.MonkeyPatch, isa: str) -> CpuBackend:
    monkeypatch.setenv("MOESTREAM_ISA", isa)
    return CpuBackend(2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("start", "tokens"), [(0, 37), (700, 5), (511, 1)])
@pytest.mark.parametrize(("dim", "value_dim"), [(64, 48), (20, 12)])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_attention_to_chosen_positions_is_the_references(
    monkeypatch, isa, start, tokens, dim, value_dim, share
):
    rng = np.random.default_rng(start + tokens)
    held = Held(1, start + tokens + 3, (dim, 0), rng=rng)
    q = rng.standard_normal((tokens, 16, dim), np.float32) * 2
    k = rng.standard_normal((tokens, 1, dim), np.float32)
    seen = (rng.random((tokens, 1, start + tokens + 2)) < share).astype(np.uint8)
    seen[np.arange(tokens), 0, rng.integers(0, start + 1, tokens)] = 1  # each row sees something
    rule = AttentionRule(dim**-0.5, value_dim=value_dim)

    def attend(ops):
        twin = held.twin()
        kv_pass = ops.kv_pass([(twin.store, start, tokens)])
        return ops.attention((q, k, None), kv_pass, 1, rule, seen)

    np.testing.assert_allclose(attend(backend(monkeypatch, isa)), attend(REFERENCE), atol=1e-5)
    everything = held.twin().attend(REFERENCE, q, k, None, start, rule)
    assert np.abs(attend(REFERENCE) - everything).max() > 0.01


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("start", "tokens"), [(0, 37), (300, 5), (511, 1)])
def test_each_key_value_head_may_see_others(monkeypatch, isa, start, tokens):
    rng = np.random.default_rng(tokens)
    held = Held(2, start + tokens, (24, 16), rng=rng)
    q = rng.standard_normal((tokens, 6, 24), np.float32) * 2
    k, v = (rng.standard_normal((tokens, 2, dim), np.float32) for dim in (24, 16))
    seen = (rng.random((tokens, 2, start + tokens)) < 0.3).astype(np.uint8)
    seen[np.arange(tokens), :, start + np.arange(tokens)] = 1
    rule = AttentionRule(24**-0.5)

    def attend(ops, choices):
        twin = held.twin()
        kv_pass = ops.kv_pass([(twin.store, start, tokens)])
        return ops.attention((q, k, v), kv_pass, 1, rule, choices).reshape(tokens, 6, 16)

    got = attend(backend(monkeypatch, isa), seen)
    np.testing.assert_allclose(got, attend(REFERENCE, seen), atol=1e-5)
    for head in range(2):  # as where all see what it sees
        alone = attend(REFERENCE, np.ascontiguousarray(seen[:, head : head + 1]))
        heads = slice(3 * head, 3 * head + 3)
        np.testing.assert_allclose(got[:, heads], alone[:, heads], atol=1e-5)


def test_heads_choose_blocks_by_their_best_and_the_last_ones():
    keys = np.array([[1, 0], [0, 3], [2, 0], [0, 1], [0, 0], [9, 9], [0, 5]], np.float32)
    queries = np.array([[[1, 0], [0, 1]], [[1, 0], [0, -1]]], np.float32)
    seen = choose_by_head(queries, keys, 4, 4, BestOfBlocks(2, 1))
    # Of blocks that are worth 1, 2 and 0, or 3, 1 and 0; then what a query does not see is not
    # among them, nor does a product below zero count as zero.
    first, second = [0, 0, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 0, 0]
    np.testing.assert_array_equal(seen[0], [first, second])
    np.testing.assert_array_equal(seen[1], [[0, 0, 1, 1, 1, 1, 0], [1, 1, 0, 0, 1, 1, 0]])
    early = choose_by_head(queries, keys, 2, 4, BestOfBlocks(2, 1))
    np.testing.assert_array_equal(early.sum(axis=2), [[3, 3], [4, 4]])


def test_the_positions_with_the_largest_scores_are_chosen():
    keys = np.array([[1, 0], [0, 3], [2, 0], [0, 1], [5, 5]], np.float32)
    queries = np.array([[[1, 0], [0, -1]], [[1, 0], [0, 1]]], np.float32)
    weights = np.array([[1, 9], [1, -1]], np.float32)
    seen = choose_positions(queries, weights, keys, 2, 2)
    # Scores 1, 0, 2, as below zero is none; then 1, -3, 2, -1. What comes later is not seen.
    np.testing.assert_array_equal(seen, [[1, 0, 1, 0, 0], [1, 0, 1, 0, 0]])
    early = choose_positions(queries[:1], weights[:1], keys, 1, 2)
    np.testing.assert_array_equal(early, [[1, 1, 0, 0, 0]])
    equal = choose_positions(queries[:1], weights[:1] * 0, keys, 3, 2)
    np.testing.assert_array_equal(equal, [[1, 1, 0, 0, 0]])


def test_nothing_is_chosen_where_all_are_seen():
    held = Held(1, 12, (24, 0), rng=np.random.default_rng(1))
    index = IndexQueries(np.ones((2, 3, 8), np.float32), np.ones((2, 3), np.float32), 12)
    k = np.ones((2, 1, 24), np.float32)
    for ops in (REFERENCE, CpuBackend(1)):
        assert ops.choose(index, k, ops.kv_pass([(held.store, 10, 2)]), 1) is None
        short = IndexQueries(index.queries, index.weights, 11)
        seen = ops.choose(short, k, ops.kv_pass([(held.store, 10, 2)]), 1)
        np.testing.assert_array_equal(seen.sum(axis=2), [[11], [11]])


def test_what_was_seen_has_a_byte_for_every_position():
    run, q = _native.Context(1), np.zeros((3, 1, 8), np.float32)
    held = Held(1, 9, (8, 0))
    native = _native.KVPass([(held.store.addresses, 6, 3)], held.store.stores.block_bytes)
    place, out = _native.KVPlace(0, 0, 1, 1), np.zeros((3, 8), np.float32)
    arguments = q, q, None, native, place, 1.0, 0, None, out
    run.attention(*arguments, np.ones((3, 1, 9), np.uint8))
    for bad in ((2, 1, 9), (3, 1, 8), (3, 2, 9)):
        with pytest.raises(ValueError, match="seen has shape"):
            run.attention(*arguments, np.ones(bad, np.uint8))


@pytest.mark.parametrize(
    "name",
    [
        "deepseek32",
        "glm-dsa",
        "dots3note",
        "hy_v4",
        "qwen4exp",
        "glm5-next",
        "minimax-m3",
        "deepseek4",
    ],
)
def test_sequences_side_by_side_choose_for_themselves(name):
    tokens = sample_tokens()
    with open_engine(name, "cpu") as engine:
        alone = [engine.session().forward(part) for part in (tokens[:40], tokens[24:])]
        first, second = engine.session(), engine.session()
        first.forward(tokens[:30])
        second.forward(tokens[24:50])
        rest = [first.forward(tokens[30:40]), second.forward(tokens[50:])]
    np.testing.assert_array_equal(rest[0], alone[0][30:])
    np.testing.assert_array_equal(rest[1], alone[1][26:])


def test_what_the_index_goes_by_is_kept_behind_the_latent():
    with GGUFFile.open(GOLDEN / "glm-dsa.gguf") as file:
        config = read_config(file)
    kept = [shape.key_dim for shape in config.state_shapes()]
    assert kept == [40 + 64 * own for own in (1, 0, 1, 0, 0, 1)]


def test_an_index_shorter_than_what_is_turned_is_refused() -> None:
    with GGUFFile.open(GOLDEN / "glm-dsa.gguf") as file:
        config, weights = read_config(file), Weights(file, REFERENCE)
        rope, turned = Rope(config.rope), config.rope.dimensions
        check_turned(weights, turned, rope)
        with pytest.raises(ModelFormatError, match=f"expected at least the {turned} that are"):
            check_turned(weights, turned - 1, rope)
