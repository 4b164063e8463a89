"""Shares by which streams are mixed: made step by step, by every backend."""

import numpy as np
import pytest

from moestream.backends.reference import ReferenceBackend

LOGITS = np.random.default_rng(9).standard_normal((5, 4, 4), np.float32) * 3


def step_by_step(logits: np.ndarray, iterations: int, eps: float) -> np.ndarray:
    exponentials = np.exp(logits.astype(np.float64))
    shares = exponentials / exponentials.sum(axis=1, keepdims=True) + eps
    for turn in range(iterations):
        if turn:
            shares = shares / (shares.sum(axis=1, keepdims=True) + eps)
        shares = shares / (shares.sum(axis=0, keepdims=True) + eps)
    return shares


@pytest.mark.parametrize("name", ["reference", "mlx"])
@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_shares_are_made_by_turns(name: str, iterations: int) -> None:
    ops = ReferenceBackend()
    logits = LOGITS
    if name == "mlx":
        mx = pytest.importorskip("mlx.core")
        from moestream.backends.mlx import MlxBackend

        ops, logits = MlxBackend(), mx.array(LOGITS)
    made = np.array(ops.sinkhorn(logits, iterations, 0.01))
    expected = np.stack([step_by_step(each, iterations, 0.01) for each in LOGITS])
    np.testing.assert_allclose(made, expected, rtol=2e-5)


def test_rows_and_columns_sum_to_about_one() -> None:
    shares = ReferenceBackend().sinkhorn(LOGITS / 3, 50, 1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(shares.sum(axis=2), 1, atol=1e-3)
