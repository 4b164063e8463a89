"""Block layouts and dequantisation, against ``gguf.quants`` called block by block."""

from typing import Any

import gguf.quants
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES

from moestream.errors import ModelFormatError, UnsupportedQuantError
from moestream.quants import GGMLQuantizationType, block_layout, dequantize, multiplies, row_bytes

T = GGMLQuantizationType
# What models in use are stored in; the installed gguf may decode more, also types unknown here.
COMMON = {T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.MXFP4}
COMMON |= {T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.TQ1_0, T.TQ2_0, T.IQ1_S, T.IQ1_M}
COMMON |= {T.IQ2_XXS, T.IQ2_XS, T.IQ2_S, T.IQ3_XXS, T.IQ3_S, T.IQ4_NL, T.IQ4_XS}


def is_decoded_by_gguf(type: GGMLQuantizationType) -> bool:
    try:
        gguf.quants.dequantize(np.zeros((1, GGML_QUANT_SIZES[type][1]), np.uint8), type)
    except NotImplementedError:
        return False
    return True


READABLE = [type for type in T if type in GGML_QUANT_SIZES and is_decoded_by_gguf(type)]
UNREADABLE = [T.Q8_1, T.Q8_K]


def test_common_types_are_readable() -> None:
    assert set(READABLE) >= COMMON


def random_rows(type: GGMLQuantizationType, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(int(type))
    return rng.integers(0, 256, (*shape, 2 * block_layout(type)[1]), dtype=np.uint8)


def expected(rows: np.ndarray[Any, Any], type: GGMLQuantizationType) -> np.ndarray[Any, Any]:
    """One block at a time, so that our handling of shapes and memory has no part in it."""
    blocks = rows.reshape(-1, block_layout(type)[1])
    with np.errstate(all="ignore"):
        decoded = [gguf.quants.dequantize(block[np.newaxis].copy(), type) for block in blocks]
    values = np.concatenate(decoded, axis=None).astype(np.float32)
    return values.reshape(*rows.shape[:-1], 2 * block_layout(type)[0])


@pytest.mark.parametrize("type", READABLE, ids=lambda type: type.name)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 3, 4)])
def test_equals_gguf_bit_for_bit(type: GGMLQuantizationType, shape: tuple[int, ...]) -> None:
    rows = random_rows(type, shape)
    values = dequantize(rows, type)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, expected(rows, type))


@pytest.mark.parametrize("type", READABLE, ids=lambda type: type.name)
def test_any_view_will_do(type: GGMLQuantizationType) -> None:
    rows = random_rows(type, (4, 3))
    want = expected(rows, type)
    odd = np.empty(rows.size + 1, dtype=np.uint8)[1:]
    unaligned = odd.reshape(rows.shape)
    unaligned[...] = rows
    unaligned.flags.writeable = False
    values = dequantize(unaligned, type)
    assert values.flags.aligned
    assert values.flags.c_contiguous
    np.testing.assert_array_equal(values, want)
    np.testing.assert_array_equal(dequantize(rows[::2, ::-1], type), want[::2, ::-1])
    wide = np.repeat(rows, 2, axis=-1)
    np.testing.assert_array_equal(dequantize(wide[..., ::2], type), want)


def test_halves_and_bfloats_have_known_values() -> None:
    halves = np.array([[1.5, -2.0, 65504.0]], dtype=np.float16)
    assert dequantize(halves.view(np.uint8), T.F16).tolist() == [[1.5, -2.0, 65504.0]]
    bfloats = np.array([[0x3FC0, 0xC000, 0x7F80]], dtype=np.uint16)
    assert dequantize(bfloats.view(np.uint8), T.BF16).tolist() == [[1.5, -2.0, np.inf]]


def test_q8_0_solved_by_hand() -> None:
    block = np.concatenate(
        [np.array([0.5], np.float16).view(np.uint8), np.arange(-16, 16, dtype=np.int8).view("u1")]
    )
    assert dequantize(block, T.Q8_0).tolist() == [n / 2 for n in range(-16, 16)]


def test_types_have_gguf_s_numbers() -> None:
    assert {type.name: int(type) for type in GGML_QUANT_SIZES}.items() <= {
        type.name: int(type) for type in T
    }.items()


def test_one_bit_solved_by_hand() -> None:
    block = np.array([0, 0x38, 0b00000101, *[0xFF] * 15], np.uint8)  # d is 0.5
    assert dequantize(block, T.Q1_0).tolist() == [0.5, -0.5, 0.5, *[-0.5] * 5, *[0.5] * 120]


def test_two_bits_solved_by_hand() -> None:
    block = np.array([0, 0xB8, 0b11100100, *[0b01010101] * 15], np.uint8)  # d is -0.5
    assert dequantize(block, T.Q2_0).tolist() == [0.5, 0, -0.5, -1.0, *[0.0] * 60]


@pytest.mark.parametrize("type", [T.I8, T.I16, T.I32, T.I64, T.F64], ids=lambda type: type.name)
def test_plain_numbers_are_read_as_floats(type: GGMLQuantizationType) -> None:
    dtype = {T.I8: "i1", T.I16: "i2", T.I32: "i4", T.I64: "i8", T.F64: "f8"}[type]
    numbers = np.array([[3, -7], [0, 127]], dtype)
    assert dequantize(numbers.view(np.uint8), type).tolist() == numbers.tolist()
    assert not multiplies(type)


def test_float32_is_not_copied() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.shares_memory(dequantize(rows.view(np.uint8), T.F32), rows)


@pytest.mark.parametrize("type", UNREADABLE, ids=lambda type: type.name)
def test_type_without_decoder_is_named(type: GGMLQuantizationType) -> None:
    with pytest.raises(UnsupportedQuantError, match=type.name):
        dequantize(np.zeros(block_layout(type)[1], np.uint8), type)


@pytest.mark.parametrize(
    "data",
    [np.zeros((2, 17), np.uint8), np.zeros((2, 18), np.int8), np.zeros((), np.uint8)],
    ids=["half a block", "not bytes", "no axis"],
)
def test_rows_that_are_no_blocks(data: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match="Q4_0 rows are uint8 with a multiple of 18"):
        dequantize(data, T.Q4_0)


def test_row_bytes() -> None:
    assert row_bytes(T.F32, 5) == 20
    assert row_bytes(T.Q4_0, 576) == 576 // 32 * 18
    assert row_bytes(T.Q4_K, 1280) == 5 * 144
    assert row_bytes(T.Q6_K, 1280) == 5 * 210


def test_row_of_part_blocks_names_the_numbers() -> None:
    with pytest.raises(ModelFormatError, match="576 values is not a whole number of Q4_K blocks"):
        row_bytes(T.Q4_K, 576)
