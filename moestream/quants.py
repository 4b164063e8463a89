"""Block layouts of the GGML quantisation types, and the slow, exact way back to float32.

Owns how many values and bytes a block has, and dequantisation by way of ``gguf.quants``, the
implementation that everything else here is tested against. Knows nothing of files, of tensors or
of fast kernels: those are ``moestream.gguf`` and the backends.
"""

import math

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize
from numpy.typing import NDArray

from moestream.errors import ModelFormatError, UnsupportedQuantError

__all__ = ["GGMLQuantizationType", "block_layout", "dequantize", "row_bytes", "tensor_bytes"]


def block_layout(type: GGMLQuantizationType) -> tuple[int, int]:
    """Values and bytes of one block, such as ``(32, 18)`` for Q4_0 and ``(1, 4)`` for F32.

    Raises:
        UnsupportedQuantError: the installed ``gguf`` has no layout for the type.
    """
    layout = GGML_QUANT_SIZES.get(type)
    if layout is None:
        raise UnsupportedQuantError(f"{type!r} has no known block layout; update the gguf package")
    return layout


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

    Source: ``gguf.quants``, bit for bit the C of ggml.
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
            values = gguf_dequantize(np.ascontiguousarray(data), type)
    except NotImplementedError:
        raise UnsupportedQuantError(f"weights of type {type.name} cannot be decoded") from None
    return np.require(values, dtype=np.float32, requirements=["ALIGNED", "C_CONTIGUOUS"])
