"""Attention to whole blocks that an indexer chooses: by the formula, and beside llama.cpp."""

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import GOLDEN

from golden.qwen4exp import BLOCKS
from moestream.backends.sparse_blocks import GatedSums, TurnedMeans, choose_blocks
from moestream.engine.engine import Engine
from moestream.gguf import GGUFFile
from moestream.layers.rope import Rope, RopeConfig
from moestream.models import read_config
from oracle.logit_stats import kl_divergence, log_softmax

SIZE = BLOCKS.ratios[-1]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_whole_blocks_are_those_of_llama_cpp(backend: str) -> None:
    """It fills what is left beside the last positions with a part of a further block.

    That is nothing where those are a block less one. The layer that chooses is the last that mixes
    tokens, so what it does to others is not seen there.
    """
    with np.load(GOLDEN / "qwen4exp-blocks.npz") as arrays:
        tokens, theirs = arrays["tokens"], arrays["logits"]
    types = {"cache_type_k": "f32", "cache_type_v": "f32"}
    with Engine.open(GOLDEN / "qwen4exp-blocks.gguf", backend=backend, **types) as engine:
        ours = engine.session().forward(tokens)
    kl = kl_divergence(log_softmax(theirs), log_softmax(ours))
    length = np.arange(len(tokens)) + 1
    alike = (length % SIZE == SIZE - 1) | (length < BLOCKS.indexer.chosen + SIZE)
    assert kl[alike].max() < 1e-6
    assert alike.sum() == 30
    assert kl[~alike].max() > 1e-3


def test_a_blocks_key_is_a_mean_normed_and_turned_to_its_place() -> None:
    rope = Rope(RopeConfig(dimensions=2, base=10.0))
    keys = np.array([[1, 0], [3, 0], [0, 1], [0, 1], [0, -1], [0, -3], [5, 5]], np.float32)
    blocks = TurnedMeans(2, 2, np.ones(2, np.float32), 0.0, rope)
    root = np.float32(2**0.5)
    means = [[root, 0], [0, root], [0, -root]]
    cos, sin = rope(np.array([0, 2, 4]))
    expected = [
        [a * c - b * s, a * s + b * c] for (a, b), c, s in zip(means, cos, sin, strict=True)
    ]
    np.testing.assert_allclose(blocks.pooled(keys), np.array(expected)[..., 0], rtol=1e-5)


def test_a_blocks_key_is_a_sum_by_gates_behind_it() -> None:
    rng = np.random.default_rng(6)
    keys, bias = rng.standard_normal((7, 4), np.float32), rng.standard_normal((3, 2), np.float32)
    pooled = GatedSums(3, 4, bias).pooled(keys)
    for block, found in enumerate(pooled):
        rows = keys[3 * block : 3 * block + 3]
        shares = np.exp(rows[:, 2:] + bias)
        np.testing.assert_allclose(found, (shares / shares.sum(0) * rows[:, :2]).sum(0), rtol=1e-5)
    assert len(pooled) == 2


def test_choices_of_single_queries() -> None:
    rope = Rope(RopeConfig(dimensions=2, base=10.0))
    blocks = TurnedMeans(2, 2, np.ones(2, np.float32), 1e-3, rope)
    keys = np.random.default_rng(3).standard_normal((9, 2), np.float32)
    queries = np.random.default_rng(4).standard_normal((3, 4, 2), np.float32)
    weights = np.random.default_rng(5).standard_normal((3, 4), np.float32)
    seen = choose_blocks(queries, weights, keys, 6, 4, blocks)
    pooled = blocks.pooled(keys)
    for row, visible in enumerate((7, 8, 9)):
        whole = visible // 2
        scores = weights[row] @ np.maximum(queries[row] @ pooled[:whole].T, 0)
        best = set(np.argsort(-scores, kind="stable")[:2].tolist())
        of_blocks = [i for i in range(whole * 2) if i // 2 in best]
        assert np.flatnonzero(seen[row]).tolist() == of_blocks + list(range(whole * 2, visible))
    early = choose_blocks(queries, weights, keys[:5], 2, 4, blocks)  # no more than two whole blocks
    np.testing.assert_array_equal(early.sum(axis=1), [3, 4, 5])


def test_what_the_index_goes_by_is_kept_behind_each_heads_keys() -> None:
    with GGUFFile.open(GOLDEN / "qwen4exp.gguf") as file:
        shapes = read_config(file).state_shapes()
    assert [getattr(shape, "key_dim", 0) for shape in shapes] == [0, 28, 0, 28, 0, 28, 0]
