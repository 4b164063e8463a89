"""The reference backend on cases that can be worked out by hand."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from kv_held import Held

from moestream.backends import ExpertTensors, Routing
from moestream.backends.reference import ReferenceBackend
from moestream.backends.types import AttentionRule
from moestream.gguf import Tensor

ops = ReferenceBackend()


def tensor(values: np.ndarray) -> Tensor:
    values = np.ascontiguousarray(values, np.float32)
    return Tensor("t", GGMLQuantizationType.F32, values.shape, values.view(np.uint8))


def test_linear_crosses_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moestream.backends.reference._SLAB_WEIGHTS", 12)
    weight = np.arange(20, dtype=np.float32).reshape(5, 4)
    x = np.array([[1, 0, 0, 0], [0, 0, 0, 2]], np.float32)
    out = ops.linear(x, tensor(weight), np.full(5, 0.5, np.float32))
    np.testing.assert_array_equal(out, x @ weight.T + 0.5)


def test_rms_norm() -> None:
    x = np.array([[3, 4]], np.float32)
    out = ops.rms_norm(x, np.array([1, 2], np.float32), eps=0.0)
    np.testing.assert_allclose(out, [[3 / 12.5**0.5, 8 / 12.5**0.5]], rtol=1e-6)


def test_swiglu_survives_huge_inputs() -> None:
    gate = np.array([[-1e4, 0, 1e4]], np.float32)
    np.testing.assert_array_equal(ops.glu(gate, np.ones_like(gate), "silu"), [[0, 0, 1e4]])


def test_route_orders_by_weight_then_id() -> None:
    logits = np.log(np.array([[0.1, 0.4, 0.1, 0.4]], np.float32))
    ids, weights = ops.route(logits, Routing(3, normalise=False))
    assert ids.tolist() == [[1, 3, 0]]
    np.testing.assert_allclose(weights, [[0.4, 0.4, 0.1]], rtol=1e-6)


def test_route_normalises() -> None:
    logits = np.log(np.array([[0.1, 0.3, 0.6]], np.float32))
    _, weights = ops.route(logits, Routing(2, normalise=True))
    np.testing.assert_allclose(weights, [[2 / 3, 1 / 3]], rtol=1e-6)


def test_moe_sums_the_chosen_experts() -> None:
    # Expert e: gate large and 1, so silu passes it on; up copies; down multiplies by e + 1.
    scale = np.arange(1, 4, dtype=np.float32)
    experts = ExpertTensors(
        gate=tensor(np.full((3, 1, 1), 1.0)),
        up=tensor(np.ones((3, 1, 1))),
        down=tensor(scale.reshape(3, 1, 1)),
    )
    x = np.array([[30.0], [40.0]], np.float32)  # silu(x) = x there, so an expert gives (e+1) x^2
    ids = np.array([[0, 2], [1, 0]], np.int32)
    weights = np.array([[0.5, 0.25], [1.0, 2.0]], np.float32)
    out = ops.moe_ffn(x, experts, (ids, weights))
    np.testing.assert_allclose(out[:, 0], [900 * (0.5 + 0.75), 1600 * (2.0 + 2.0)], rtol=1e-6)


def test_attention_is_causal_and_grouped() -> None:
    # Two query heads share one KV head; keys are zero, so a token averages the values it sees.
    held = Held(1, 8, (2, 2), ("f32", "f32"))
    v = np.array([[[2, 0]], [[4, 0]], [[6, 0]]], np.float32)
    zeros = np.zeros((3, 1, 2), np.float32)
    q = np.ones((3, 2, 2), np.float32)
    first = held.attend(ops, q[:1], zeros[:1], v[:1], 0, AttentionRule(1.0))
    rest = held.attend(ops, q[1:], zeros[1:], v[1:], 1, AttentionRule(1.0))
    assert first.tolist() == [[2, 0, 2, 0]]
    np.testing.assert_allclose(rest, [[3, 0, 3, 0], [4, 0, 4, 0]], rtol=1e-6)


def test_attention_weighs_by_scaled_scores() -> None:
    held = Held(1, 2, (1, 1), ("f32", "f32"))
    k = np.array([[[0]], [[np.log(3)]]], np.float32)
    v = np.array([[[0]], [[1]]], np.float32)
    out = held.attend(ops, np.full((2, 1, 1), 2, np.float32), k, v, 0, AttentionRule(0.5))
    np.testing.assert_allclose(out, [[0], [0.75]], rtol=1e-6)
