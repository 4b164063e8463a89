"""Native activations, and experts without a gate, against the reference."""

import numpy as np
import pytest
from native_blocks import ISAS

from moestream.backends import ExpertTensors
from moestream.backends.cpu import CpuBackend
from moestream.backends.reference import ReferenceBackend
from moestream.gguf import Tensor
from moestream.quants import GGMLQuantizationType as Type

REFERENCE = ReferenceBackend()
each_isa = pytest.mark.parametrize("isa", ISAS)


def backend(monkeypatch: pytest.MonkeyPatch, isa: str) -> CpuBackend:
    monkeypatch.setenv("MOESTREAM_ISA", isa)
    return CpuBackend(2)


@each_isa
@pytest.mark.parametrize("activation", ["relu", "silu_clamped", "silu_capped", "situ"])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_activations_are_the_references(monkeypatch, isa, activation, count):
    gate, up = 2 * np.random.default_rng(count).standard_normal((2, 3, count), np.float32)
    ops = backend(monkeypatch, isa)
    for limits in ((0.75, 1.25), (0.75,)):
        got, expected = (maths.glu(gate, up, activation, *limits) for maths in (ops, REFERENCE))
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


def test_limits_of_situ_are_never_left(monkeypatch):
    gate = np.array([-90, -1, 0, 1, 90, 3e38], np.float32)
    for ops in (REFERENCE, backend(monkeypatch, ISAS[-1])):
        got = ops.glu(gate, np.full_like(gate, 90), "situ", 2.0, 3.0)
        middle = 2 * np.tanh([-0.5, 0, 0.5]) / (1 + np.exp([1, 0, -1])) * 3
        np.testing.assert_allclose(got, [0, *middle, 6, 6], atol=1e-5)


def floats(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return Tensor(name, Type.F32, shape, values.view(np.uint8))


@each_isa
def test_experts_without_a_gate_square(monkeypatch, isa):
    up, down = floats("up", (4, 24, 16), 1), floats("down", (4, 16, 24), 2)
    tensors = ExpertTensors(up, up, down, "relu")
    x = np.random.default_rng(3).standard_normal((5, 16)).astype(np.float32)
    ids = np.array([[0, 1], [3, 0], [2, 1], [1, 3], [0, 2]], np.int32)
    weights = np.full((5, 2), 0.5, np.float32)
    ops = backend(monkeypatch, isa)
    got = ops.moe_ffn(x, ops.experts(tensors), (ids, weights))
    squared = np.maximum(x @ up.data.view(np.float32).transpose(0, 2, 1), 0) ** 2
    outputs = squared @ down.data.view(np.float32).transpose(0, 2, 1)  # (N, T, E)
    expected = sum(outputs[ids[:, slot], range(5)] for slot in range(2)) / 2
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
