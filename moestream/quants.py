"""Block layouts of the GGML quantisation types, and the slow, exact way back to float32.

Owns the types' numbers, how many values and bytes a block has, and dequantisation by way of
``gguf.quants``, the implementation that everything else here is tested against; what the installed
gguf does not have yet is added here. Knows nothing of files, of tensors or of fast kernels: those
are ``moestream.gguf`` and the backends.
"""

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize as gguf_dequantize
from numpy.typing import NDArray

from moestream.errors import ModelFormatError, UnsupportedQuantError


class GGMLQuantizationType(IntEnum):
    """The types of tensors in GGUF files, under GGML's numbers.

    Members equal those of gguf's own enumeration, which lacks the last.
    """

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42


_NUMBERS: dict[GGMLQuantizationType, np.dtype[Any]] = {
    GGMLQuantizationType.I8: np.dtype(np.int8),
    GGMLQuantizationType.I16: np.dtype(np.int16),
    GGMLQuantizationType.I32: np.dtype(np.int32),
    GGMLQuantizationType.I64: np.dtype(np.int64),
    GGMLQuantizationType.F64: np.dtype(np.float64),
}
_LAYOUTS = {GGMLQuantizationType.Q1_0: (128, 18), GGMLQuantizationType.Q2_0: (64, 18)}
"""Of types that not every gguf has."""


def block_layout(type: GGMLQuantizationType) -> tuple[int, int]:
    """Values and bytes of one block, such as ``(32, 18)`` for Q4_0 and ``(1, 4)`` for F32.

    Raises:
        UnsupportedQuantError: the installed ``gguf`` has no layout for the type.
    """
    layout = GGML_QUANT_SIZES.get(type) or _LAYOUTS.get(type)  # type: ignore[call-overload]
    if layout is None:
        raise UnsupportedQuantError(f"{type!r} has no known block layout; update the gguf package")
    return layout


def multiplies(type: GGMLQuantizationType) -> bool:
    """Whether matrices may be of the type; integers and F64 are read as vectors alone."""
    return type not in _NUMBERS


def row_bytes(type: GGMLQuantizationType, n_columns: int) -> int:
    """Bytes of one row of ``n_columns`` values.

    Raises:
        ModelFormatError: the row is not a whole number of blocks.
        UnsupportedQuantError: as for ``block_layout``.
    """
    block_values, block_bytes = block_layout(type)
    if n_columns % block_values:
        raise ModelFormatError(
            f"a row of {n_columns} values is not a whole number of {type.name} blocks "
            f"of {block_values}"
        )
    return n_columns // block_values * block_bytes


def tensor_bytes(type: GGMLQuantizationType, shape: tuple[int, ...]) -> int:
    """Bytes of all rows of a tensor, slowest axis first.

    Raises:
        ModelFormatError, UnsupportedQuantError: as for ``row_bytes``.
    """
    *rows, columns = shape
    return math.prod(rows) * row_bytes(type, columns)


def dequantize(data: NDArray[np.uint8], type: GGMLQuantizationType) -> NDArray[np.float32]:
    """Decode rows of blocks: ``(..., row_bytes)`` bytes to ``(..., columns)`` float32.

    ``data`` may be any view, at any address. F32 comes back without a copy where the memory
    allows, so it may be read-only. An infinite scale gives infinities or NaN, as it does in C.

    Raises:
        UnsupportedQuantError: ``gguf.quants`` cannot decode the type.
        ValueError: the rows are not bytes, or not a whole number of blocks.

    Source: ``gguf.quants``, bit for bit the C of ggml; ggml's for what gguf cannot decode.
    """
    _, block_bytes = block_layout(type)
    if data.dtype != np.uint8 or data.ndim == 0 or data.shape[-1] % block_bytes:
        raise ValueError(
            f"{type.name} rows are uint8 with a multiple of {block_bytes} in the last axis, "
            f"not {data.dtype} of shape {data.shape}"
        )
    if data.size == 0:  # no rows, or rows of no values
        return np.zeros((*data.shape[:-1], 0), np.float32)
    try:
        with np.errstate(all="ignore"):
            blocks = np.ascontiguousarray(data)
            if type in _NUMBERS:
                values = blocks.view(_NUMBERS[type]).astype(np.float32)
            elif type in _DECODERS:
                values = _DECODERS[type](blocks, type)
            else:
                values = gguf_dequantize(blocks, type)  # type: ignore[arg-type]
    except NotImplementedError:
        raise UnsupportedQuantError(f"weights of type {type.name} cannot be decoded") from None
    return np.require(values, dtype=np.float32, requirements=["ALIGNED", "C_CONTIGUOUS"])


def _codes_of_bits(bits: int) -> Callable[..., NDArray[np.float32]]:
    """A decoder of blocks of a float16 d and codes of so many bits, from the lowest up.

    Values are d * (code - 1), and of one bit, d * (2 code - 1).
    """

    def decode(data: NDArray[np.uint8], type: GGMLQuantizationType) -> NDArray[np.float32]:
        values, block_bytes = block_layout(type)
        blocks = data.reshape(-1, block_bytes)
        d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes = (blocks[:, 2:, np.newaxis] >> shifts & ((1 << bits) - 1)).reshape(-1, values)
        factors = (codes.astype(np.float32) * (2 if bits == 1 else 1)) - 1
        return (d * factors).reshape(*data.shape[:-1], -1)

    return decode


_DECODERS = {
    GGMLQuantizationType.Q1_0: _codes_of_bits(1),
    GGMLQuantizationType.Q2_0: _codes_of_bits(2),
}
"""Of types that gguf may know and cannot decode."""
