"""How keys and values are rounded, in the backends that keep them in NumPy arrays.

Owns the types, their sizes, and the blocks of 32 that rows are rounded to. The native backend
writes and reads the same bytes. Where rows lie is ``kv_blocks``'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.choices import KVType
from moestream.errors import UnsupportedModelError
from moestream.quants import GGMLQuantizationType, block_layout, dequantize, row_bytes

KVTypes = tuple[KVType, KVType]
"""Of keys, and of values."""
BLOCK_POSITIONS = 256
"""Positions of a block of the KV cache; ``kSplitPositions`` of the native attention."""
GGML_TYPES = {
    "f16": GGMLQuantizationType.F16,
    "f32": GGMLQuantizationType.F32,
    "q8_0": GGMLQuantizationType.Q8_0,
    "q4_0": GGMLQuantizationType.Q4_0,
}
KV_DTYPES = {"f16": np.float16, "f32": np.float32, "q8_0": np.uint8, "q4_0": np.uint8}
_TINY = np.float32(1e-30)
"""A block with no value as large as this is taken for zeros: its scale has no reciprocal."""


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Keys (K, S, key_dim) and values (K, S, value_dim) of a layer; S grows.

    ``value_dim`` 0: a layer whose values are a part of its keys.
    """

    heads: int
    key_dim: int
    value_dim: int

    def n_bytes(self, tokens: int, kv_types: KVTypes) -> int:
        """Bytes that so many tokens take.

        Raises:
            UnsupportedModelError: a row is not a whole number of a type's blocks.
        """
        rows = zip((self.key_dim, self.value_dim), kv_types, strict=True)
        return tokens * self.heads * sum(kv_row_bytes(dim, kind) for dim, kind in rows if dim)


KVShapes = Sequence[AttentionShape | None]
"""By layer; None for one that does not attend."""


def kv_row_bytes(dim: int, kv_type: KVType) -> int:
    """Bytes of one head's keys, or values, at one position.

    Raises:
        UnsupportedModelError: ``dim`` is not a whole number of the type's blocks.
    """
    values, _ = block_layout(GGML_TYPES[kv_type])
    if dim % values:
        raise UnsupportedModelError(
            f"the model's heads of {dim} values do not divide into {kv_type}'s blocks of {values}; "
            "store keys and values as f16 (--cache-type-k, --cache-type-v)"
        )
    return row_bytes(GGML_TYPES[kv_type], dim)


def whole_blocks(tokens: int) -> int:
    """Positions in the blocks that so many tokens take."""
    return -(-tokens // BLOCK_POSITIONS) * BLOCK_POSITIONS


def write_rows(into: NDArray[np.generic], rows: NDArray[np.float32], kv_type: KVType) -> None:
    """Round rows (..., D) to the type of a part of a buffer, and put them there."""
    quantize = _QUANTIZE.get(kv_type)
    into[:] = rows if quantize is None else quantize(rows)


def read_rows(rows: NDArray[np.generic], kv_type: KVType) -> NDArray[np.float32]:
    """Rows of a buffer as float32: (..., D)."""
    if kv_type in _QUANTIZE:
        return dequantize(rows.view(np.uint8), GGML_TYPES[kv_type])
    return rows.astype(np.float32)


def quantize_q8_0(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rows (..., D) as Q8_0 blocks of 32: scale ``max / 127`` as float16, then the codes.

    Codes are rounded to even with the scale as it was in float32. A block with a value that is not
    finite gets the scale NaN, so that all of it is NaN.

    Source: ggml/src/ggml-cpu/arch/x86/quants.c of llama.cpp (``quantize_row_q8_0``).
    """
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    largest = np.max(np.abs(blocks), axis=-1, keepdims=True)
    usable = np.isfinite(largest) & (largest >= _TINY)
    with np.errstate(all="ignore"):
        scaled = np.where(usable, blocks * (np.float32(127) / largest), 0)
        scale = np.where(np.isfinite(largest), largest / np.float32(127) * usable, np.nan)
        parts = scale.astype(np.float16), np.rint(scaled).astype(np.int8)
    rows = np.concatenate([part.view(np.uint8) for part in parts], axis=-1)
    return rows.reshape(*x.shape[:-1], -1)


def quantize_q4_0(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rows (..., D) as Q4_0 blocks of 32: scale as float16, then two codes a byte.

    The value farthest from zero, the first of such, gets the code for -8; halves are rounded
    upwards. A block with a value that is not finite gets the scale NaN.

    Source: ggml/src/ggml-quants.c of llama.cpp (``quantize_row_q4_0_ref``).
    """
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    at = np.argmax(np.abs(blocks), axis=-1, keepdims=True)
    farthest = np.take_along_axis(blocks, at, axis=-1)
    finite = np.isfinite(blocks).all(axis=-1, keepdims=True)
    usable = finite & (np.abs(farthest) >= _TINY)
    with np.errstate(all="ignore"):
        scale = np.where(usable, farthest / np.float32(-8), np.float32(0))
        scaled = np.where(usable, blocks * (np.float32(1) / scale) + np.float32(8.5), 8)
        half = np.where(finite, scale, np.nan).astype(np.float16)
    codes = np.minimum(scaled.astype(np.uint8), 15)
    pairs = codes[..., :16] | codes[..., 16:] << 4
    return np.concatenate([half.view(np.uint8), pairs], axis=-1).reshape(*x.shape[:-1], -1)


_QUANTIZE = {"q8_0": quantize_q8_0, "q4_0": quantize_q4_0}
