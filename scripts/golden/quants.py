"""Weights of the golden models in every quantisation type.

The `gguf` package encodes the simple types. For the others it only decodes, so their blocks are
random bytes, with the block's scales set for the wanted spread of values: any bytes are a valid
block of these types, and what matters to a test is that two programs read the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from numpy.typing import NDArray

RandomBytes = Callable[[tuple[int, ...]], NDArray[np.uint8]]

# type -> (byte offset of the half-precision scale d in a block, offset of dmin, dmin / d).
# With that ratio d * scale * quant - dmin * min is about zero on average.
SCALES: dict[T, tuple[int, int | None, float]] = {
    T.Q2_K: (80, 82, 1.5),
    T.Q3_K: (108, None, 0.0),
    T.Q4_K: (0, 2, 7.5),
    T.Q5_K: (0, 2, 15.5),
    T.Q6_K: (208, None, 0.0),
    T.NVFP4: (0, None, 0.0),  # four scales of a byte: a power of two
    T.Q1_0: (0, None, 0.0),
    T.IQ1_S: (0, None, 0.0),
    T.IQ1_M: (48, None, 0.0),  # four bits at the top of each of four words
    T.IQ2_XXS: (0, None, 0.0),
    T.IQ2_XS: (0, None, 0.0),
    T.IQ2_S: (0, None, 0.0),
    T.IQ3_XXS: (0, None, 0.0),
    T.IQ3_S: (0, None, 0.0),
    T.IQ4_NL: (0, None, 0.0),
    T.IQ4_XS: (0, None, 0.0),
}


def encode(values: NDArray[np.float32], qtype: T, random_bytes: RandomBytes) -> NDArray[np.generic]:
    """Return `values` as `qtype`, or random blocks of their spread where gguf cannot encode.

    Args:
        values: (..., columns) with columns a multiple of the block length.
        qtype: the wanted type.
        random_bytes: draws bytes of a shape.
    """
    if qtype not in SCALES:
        return gguf.quants.quantize(values, qtype)
    block_length, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
    blocks = random_bytes((values.size // block_length, block_bytes)).copy()
    _set_scales(blocks, qtype, np.float16(1))
    spread = _deviation(blocks, qtype) / values.std()
    _set_scales(blocks, qtype, np.float16(1 / spread))
    return blocks.reshape(*values.shape[:-1], -1)


def _deviation(blocks: NDArray[np.uint8], qtype: T) -> np.floating:
    if qtype == T.Q1_0:  # 1 or -1, which gguf does not decode
        return np.float32(1)
    return gguf.quants.dequantize(blocks, qtype).std()


def _set_scales(blocks: NDArray[np.uint8], qtype: T, d: np.float16) -> None:
    d_at, dmin_at, ratio = SCALES[qtype]
    if qtype == T.NVFP4:
        exponent = int(np.clip(np.rint(np.log2(float(d))) + 7, 1, 14))
        blocks[:, :4] = exponent << 3
        return
    if qtype == T.IQ1_M:
        for word in range(4):
            nibble = int(d.view(np.uint16)) >> (4 * word) & 15
            top = blocks[:, d_at + 2 * word + 1]
            top[:] = top & 15 | nibble << 4
        return
    blocks[:, d_at : d_at + 2] = np.frombuffer(d.tobytes(), np.uint8)
    if dmin_at is not None:
        dmin = np.float16(d * np.float16(ratio))
        blocks[:, dmin_at : dmin_at + 2] = np.frombuffer(dmin.tobytes(), np.uint8)
