"""The statistics behind the oracle tests, on cases solvable by hand."""

import hashlib

import numpy as np
import pytest

from oracle.file import TOP, Oracle, OracleWriter, partition_log_probs
from oracle.logit_stats import (
    BLOCK_ROWS,
    Comparison,
    kl_divergence,
    log_softmax,
    next_log_probs,
    perplexity,
)


def random_logits(tokens: int, vocab: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (tokens, vocab)).astype(np.float32)


def test_log_softmax_is_shift_invariant_and_survives_large_logits():
    logits = np.log([[1.0, 2.0, 5.0]]) + 1e4
    np.testing.assert_allclose(np.exp(log_softmax(logits)), [[0.125, 0.25, 0.625]], rtol=1e-9)


def test_kl_divergence_of_a_coin():
    p, q = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    assert kl_divergence(p, q) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert kl_divergence(p, p) == 0


def test_perplexity_of_a_fair_die_is_six():
    assert perplexity(np.log(np.full(10, 1 / 6))) == pytest.approx(6)


def test_next_log_probs_reads_the_token_that_came_next():
    logits = random_logits(2 * BLOCK_ROWS + 3, 20, seed=1)
    tokens = np.arange(len(logits)) % 20
    expected = [log_softmax(row)[token] for row, token in zip(logits, tokens[1:], strict=False)]
    np.testing.assert_allclose(next_log_probs(logits, tokens), expected)


def test_comparison_joins_windows_and_summarises():
    logits = random_logits(BLOCK_ROWS + 5, 30, seed=2)
    other = logits.copy()
    other[3, logits[3].argmin()] += 50
    tokens = [7] * len(logits)
    part = Comparison.of(tokens, logits, other)
    summary = Comparison.join([part, Comparison.of(tokens, logits, logits)]).summary()
    assert summary["positions"] == 2 * len(logits)
    assert summary["top1_agreement"] == 1 - 1 / (2 * len(logits))
    assert summary["kl_max"] == part.kl[3] > 10
    assert summary["kl_median"] == 0
    assert summary["perplexity_q"] > summary["perplexity_p"]


def test_partition_sums_to_one():
    logits = random_logits(4, 100, seed=3)
    ids = np.tile(np.arange(10), (4, 1))
    parts = partition_log_probs(logits, ids)
    np.testing.assert_allclose(np.exp(parts).sum(axis=1), 1)
    np.testing.assert_array_equal(parts[:, :10], log_softmax(logits)[:, :10])


def test_oracle_file_bounds_the_kl_from_below(tmp_path):
    model = tmp_path / "model"
    model.write_bytes(b"weights")
    p = random_logits(BLOCK_ROWS + 6, 300, seed=4)
    q = p + random_logits(len(p), 300, seed=5) / 10
    tokens = np.arange(len(p))
    writer = OracleWriter(model, "llama.cpp 1")
    writer.add(tokens, p, q)
    writer.add(tokens, q, q)
    writer.save(tmp_path / "oracle.npz")
    oracle = Oracle.load(tmp_path / "oracle.npz")

    assert oracle.top_ids.shape == (2, len(p), TOP)
    assert (oracle.top_ids[0, :, 0] == p.argmax(axis=1)).all()
    np.testing.assert_array_equal(oracle.tokens, [tokens, tokens])
    np.testing.assert_allclose(oracle.next_log_probs[0], next_log_probs(p, tokens), rtol=1e-6)
    assert oracle.model_sha256 == hashlib.sha256(b"weights").hexdigest()
    assert oracle.kl(0, p).max() < 1e-6
    np.testing.assert_allclose(oracle.rounded_kl[0], oracle.kl(0, q), rtol=1e-6)
    assert oracle.rounded_kl[1].max() < 1e-6
    assert oracle.rounded_perplexity == pytest.approx(
        perplexity([next_log_probs(q, tokens), next_log_probs(q, tokens)])
    )
    assert oracle.perplexity == pytest.approx(
        perplexity([next_log_probs(p, tokens), next_log_probs(q, tokens)])
    )
    bound, full = oracle.kl(0, q), kl_divergence(log_softmax(p), log_softmax(q))
    assert (bound <= full).all()
    assert bound.mean() > 0.5 * full.mean()
