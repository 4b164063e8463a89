"""Exponentials, sigmoids, products and streams by kernels: the formulas', and one set of bits."""

import numpy as np
import pytest
from native_blocks import ISAS

from moestream.backends.cpu import CpuBackend
from moestream.backends.reference import ReferenceBackend
from moestream.backends.stream_gates import StreamGates
from moestream.gguf import Tensor
from moestream.quants import GGMLQuantizationType

REFERENCE = ReferenceBackend()
EDGES = np.array(
    [0, -0.0, 1e-8, -1e-8, 20, -20, 87.9, -87.9, 200, -200, np.inf, -np.inf], np.float32
)


@pytest.fixture
def all_ops(monkeypatch: pytest.MonkeyPatch) -> list[CpuBackend]:
    found = []
    for isa in ISAS:
        monkeypatch.setenv("MOESTREAM_ISA", isa)
        found.append(CpuBackend(2))
    return found


def same(all_ops: list[CpuBackend], run) -> np.ndarray:
    """What all instruction sets and numbers of threads come to."""
    first, *others = (run(ops) for ops in all_ops)
    for other in others:
        np.testing.assert_array_equal(other, first)
    return first


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape, np.float32) * 6


@pytest.mark.parametrize("x", [EDGES, numbers(3, 7000), numbers(0)], ids=["edges", "many", "none"])
@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.filterwarnings("ignore:invalid")
def test_softplus_and_exponentials_are_the_formulas(all_ops, x) -> None:
    found = same(all_ops, lambda ops: ops.softplus(x))
    np.testing.assert_allclose(found, REFERENCE.softplus(x), rtol=3e-7, atol=2e-38)
    low = np.minimum(x, 80)  # beyond which the kernels saturate
    found = same(all_ops, lambda ops: ops.exponentials(low))
    np.testing.assert_allclose(found, np.exp(low), rtol=3e-7, atol=2e-38)


@pytest.mark.parametrize("x", [EDGES, numbers(3, 7000), numbers(0)], ids=["edges", "many", "none"])
def test_what_is_softened_is_the_formulas(all_ops, x) -> None:
    found = same(all_ops, lambda ops: ops.soften(x, 30.0))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, REFERENCE.soften(x, 30.0), rtol=3e-7, atol=3e-6)


@pytest.mark.parametrize(
    ("x", "logits"),
    [
        ((3, 5000), (3, 5000)),
        ((40, 300), (40, 1)),
        ((4,), (7, 4)),
        ((2, 1, 6), (2, 3, 1)),
        ((), (5, 2)),
    ],
)
def test_sigmoids_scale_shapes_that_go_together(all_ops, x, logits) -> None:
    a, b = numbers(*x), numbers(*logits)
    found = same(all_ops, lambda ops: ops.sigmoid_scale(a if x else 2.5, b))
    expected = REFERENCE.sigmoid_scale(a if x else np.float32(2.5), b)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=4e-7, atol=1e-30)
    edges = same(all_ops, lambda ops: ops.sigmoid_scale(np.ones_like(EDGES), EDGES))
    np.testing.assert_allclose(edges, REFERENCE.sigmoid(EDGES), rtol=3e-7, atol=2e-38)


@pytest.mark.parametrize("shape", [(1, 5, 1), (3, 17, 30), (2, 0, 4)])
def test_products_are_of_each_row_with_each(all_ops, shape) -> None:
    (m, n, d), rng = shape, np.random.default_rng(5)
    a, b = rng.standard_normal((m, d), np.float32), rng.standard_normal((d, n), np.float32).T
    found = same(all_ops, lambda ops: ops.products(a, b))
    np.testing.assert_allclose(found, a @ b.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize(("tokens", "count", "size"), [(1, 4, 1088), (37, 3, 64)])
def test_streams_are_read_and_written(all_ops, tokens, count, size, writes) -> None:
    rank, wide, rng = 32, count * size, np.random.default_rng(tokens)

    def matrix(rows: int, columns: int) -> Tensor:
        data = rng.standard_normal((rows, columns), np.float32) * np.float32(columns**-0.5)
        return Tensor("m", GGMLQuantizationType.F32, (rows, columns), data.view(np.uint8))

    norm = rng.random((count, size), np.float32) + 1
    made = matrix(rank, wide), matrix(wide, rank), matrix(count, wide)
    streams, added = numbers(tokens, count, size), numbers(tokens, size)

    def gates(ops) -> StreamGates:
        down, up, inject = (ops.matrix(tensor) for tensor in made)
        ones = np.ones(size, np.float32)
        return StreamGates(norm, ones, 1e-5, down, up, inject if writes else None)

    read = same(all_ops, lambda ops: ops.read_streams(streams, gates(ops))[0])
    expected, scales = REFERENCE.read_streams(streams, gates(REFERENCE))
    np.testing.assert_allclose(read, expected, rtol=1e-4, atol=1e-5)
    if not writes:
        assert all(ops.read_streams(streams, gates(ops))[1] is None for ops in all_ops)
        return
    found = same(all_ops, lambda ops: ops.read_streams(streams, gates(ops))[1])
    np.testing.assert_allclose(found, scales, rtol=1e-4)
    written = same(all_ops, lambda ops: ops.write_streams(streams, added, found))
    np.testing.assert_allclose(written, REFERENCE.write_streams(streams, added, found), rtol=1e-6)
    if tokens > 1:  # whichever rows are beside it
        one = all_ops[0].read_streams(streams[5:6], gates(all_ops[0]))[0]
        np.testing.assert_array_equal(one[0], read[5])


def test_streams_of_other_shapes_are_refused() -> None:
    ops = CpuBackend(1)
    zeros = np.zeros((2, 3, 8), np.float32)
    with pytest.raises(ValueError, match=r"added has shape \(2, 7\), expected \(2, 8\)"):
        ops.write_streams(zeros, zeros[:, 0, :7].copy(), zeros[:, :, 0].copy())
    wide = Tensor("m", GGMLQuantizationType.F32, (4, 16), np.zeros((4, 64), np.uint8))
    down = ops.matrix(wide)
    with pytest.raises(ValueError, match="down is of 4 by 16, expected 4 by 24"):
        ops.read_streams(zeros, StreamGates(zeros[0], zeros[0, 0], 1e-5, down, down, None))
