"""Angles: plain, linear, YaRN, and frequency factors."""

import numpy as np
import pytest

from moestream.backends.reference import ReferenceBackend
from moestream.layers.rope import Rope, RopeConfig


def test_plain_angles() -> None:
    cos, sin = Rope(RopeConfig(4, base=100.0))(np.arange(3, 5))
    angles = np.array([[3.0, 0.3], [4.0, 0.4]])
    np.testing.assert_allclose(cos, np.cos(angles), rtol=1e-6)
    np.testing.assert_allclose(sin, np.sin(angles), rtol=1e-6)


def test_linear_scaling_slows_every_frequency() -> None:
    plain, scaled = (Rope(RopeConfig(8)), Rope(RopeConfig(8, scaling="linear", factor=4.0)))
    np.testing.assert_allclose(scaled.frequencies, plain.frequencies / 4)


def test_frequency_factors_divide() -> None:
    factors = np.array([1, 2, 4, 8], np.float32)
    scaled = Rope(RopeConfig(8), factors)
    np.testing.assert_allclose(scaled.frequencies, Rope(RopeConfig(8)).frequencies / factors)


def test_yarn_keeps_fast_and_stretches_slow_coordinates() -> None:
    config = RopeConfig(64, scaling="yarn", factor=4.0, original_context=2048)
    plain, yarn = Rope(RopeConfig(64)).frequencies, Rope(config).frequencies
    ratio = plain / yarn
    assert ratio[0] == pytest.approx(1.0)
    assert ratio[-1] == pytest.approx(4.0)
    assert np.all(np.diff(ratio) >= 0)
    assert Rope(config).magnitude == pytest.approx(1 + 0.1 * np.log(4))


def test_yarn_that_shortens_the_context_leaves_the_magnitude() -> None:
    config = RopeConfig(64, scaling="yarn", factor=0.5, original_context=2048)
    assert Rope(config).magnitude == 1


@pytest.mark.parametrize("style", ["interleaved", "half"])
def test_rotation_makes_scores_depend_on_distance_alone(style: str) -> None:
    rope, ops = Rope(RopeConfig(8)), ReferenceBackend()
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 1, 1, 8), dtype=np.float32)

    def score(query_at: int, key_at: int) -> float:
        turned_q = ops.rope(q, *rope(np.array([query_at])), style)
        turned_k = ops.rope(k, *rope(np.array([key_at])), style)
        return float((turned_q * turned_k).sum())

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-5)
    assert score(7, 3) != pytest.approx(score(7, 5), abs=1e-3)


def test_the_two_orders_pair_different_coordinates() -> None:
    ops, (cos, sin) = ReferenceBackend(), Rope(RopeConfig(4, base=1.0))(np.array([1]))
    x = np.array([[[1, 0, 0, 0]]], np.float32)
    assert np.nonzero(ops.rope(x, cos, sin, "interleaved")[0, 0])[0].tolist() == [0, 1]
    assert np.nonzero(ops.rope(x, cos, sin, "half")[0, 0])[0].tolist() == [0, 2]


def test_coordinates_beyond_the_rotary_dimensions_pass() -> None:
    ops, (cos, sin) = ReferenceBackend(), Rope(RopeConfig(2))(np.array([5]))
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    assert ops.rope(x, cos, sin, "half")[0, 0, 2:].tolist() == [2, 3]
