"""The K-quant encoders against gguf's decoders, which nobody here wrote."""

from collections.abc import Callable

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from numpy.typing import NDArray

from moestream.demo.kquants import quantize_q4_k, quantize_q6_k

Encoder = Callable[[NDArray[np.float32]], NDArray[np.uint8]]
ENCODERS = [
    pytest.param(quantize_q4_k, Type.Q4_K, 144, 0.075, id="Q4_K"),
    pytest.param(quantize_q6_k, Type.Q6_K, 210, 0.0185, id="Q6_K"),
]


def normal(*shape: int, scale: float = 0.1) -> NDArray[np.float32]:
    return (np.random.default_rng(7).standard_normal(shape) * scale).astype(np.float32)


def relative_error(encode: Encoder, type_: Type, values: NDArray[np.float32]) -> float:
    back = dequantize(encode(values), type_)
    return float(np.linalg.norm(back - values) / np.linalg.norm(values))


@pytest.mark.parametrize(("encode", "type_", "block_bytes", "limit"), ENCODERS)
def test_gguf_decodes_what_we_encode(
    encode: Encoder, type_: Type, block_bytes: int, limit: float
) -> None:
    values = normal(3, 5, 1280)
    assert encode(values).shape == (3, 5, 5 * block_bytes)
    assert relative_error(encode, type_, values) < limit


@pytest.mark.parametrize(("encode", "type_", "block_bytes", "limit"), ENCODERS)
def test_each_position_keeps_its_place(
    encode: Encoder, type_: Type, block_bytes: int, limit: float
) -> None:
    values = np.repeat(np.eye(256, dtype=np.float32), 2, axis=0)
    values[1::2] *= -1
    back = dequantize(encode(values), type_)
    np.testing.assert_array_equal(np.abs(back).argmax(axis=1), np.arange(512) // 2)
    np.testing.assert_allclose(back, values, atol=0.04)


@pytest.mark.parametrize(("encode", "type_", "block_bytes", "limit"), ENCODERS)
def test_zeros_one_sided_and_mixed_magnitudes(
    encode: Encoder, type_: Type, block_bytes: int, limit: float
) -> None:
    assert not dequantize(encode(np.zeros((2, 256), np.float32)), type_).any()
    assert relative_error(encode, type_, np.abs(normal(4, 512))) < limit
    assert relative_error(encode, type_, -np.abs(normal(4, 512))) < limit
    mixed = normal(4, 2, 256) * np.array([[0.03], [1.0]], np.float32)
    back = dequantize(encode(mixed.reshape(4, 512)), type_).reshape(4, 2, 256)
    small = np.linalg.norm((back - mixed)[:, 0]) / np.linalg.norm(mixed[:, 0])
    assert small < limit, "a super-block must not lend its scale to its neighbour"


@pytest.mark.parametrize(("encode", "type_", "block_bytes", "limit"), ENCODERS)
def test_rows_do_not_depend_on_each_other(
    encode: Encoder, type_: Type, block_bytes: int, limit: float
) -> None:
    values = normal(700, 512)
    alone = np.concatenate([encode(values[:333]), encode(values[333:])])
    np.testing.assert_array_equal(encode(values), alone)


@pytest.mark.parametrize("encode", [quantize_q4_k, quantize_q6_k])
def test_columns_must_fill_super_blocks(encode: Encoder) -> None:
    with pytest.raises(ValueError, match="300 columns"):
        encode(normal(2, 300))
