"""Random tensors of every type that has a native kernel, and what their products should be."""

import numpy as np
from numpy.typing import NDArray

from moestream import _native
from moestream.quants import GGMLQuantizationType as QType
from moestream.quants import block_layout, dequantize, row_bytes

TYPES = [type for type in QType if _native.supports(int(type))]
ISAS = _native.available_isas()

SCALES = {
    QType.Q2_K: (80, 82),
    QType.Q3_K: (108,),
    QType.Q6_K: (208,),
    QType.Q4_1: (0, 2),
    QType.Q5_1: (0, 2),
    QType.Q4_K: (0, 2),
    QType.Q5_K: (0, 2),
    QType.TQ1_0: (52,),
    QType.TQ2_0: (64,),
}
"""Where the float16 of a block lie; at 0 if not given here."""

FLOATS = {QType.F32: np.float32, QType.F16: np.float16}


def columns_of(type: QType, blocks: int = 3) -> int:
    """Columns of so many blocks; an odd number for float types."""
    values = block_layout(type)[0]
    return 77 if values == 1 else values * blocks


def random_blocks(
    rng: np.random.Generator,
    type: QType,
    rows: int,
    columns: int,
    *,
    scale: float = 0.05,
    fill: int | None = None,
) -> NDArray[np.uint8]:
    """Rows of random codes, or of ``fill`` in each byte, with scales of up to ``scale``."""
    if type in FLOATS or type == QType.BF16:
        values = (rng.standard_normal((rows, columns)) * scale).astype(np.float32)
        if type == QType.BF16:
            return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return values.astype(FLOATS[type]).view(np.uint8)
    raw = rng.integers(0, 256, (rows, row_bytes(type, columns)), dtype=np.uint8)
    if fill is not None:
        raw[:] = fill
    blocks = raw.reshape(rows, -1, block_layout(type)[1])
    if type == QType.MXFP4:
        blocks[..., 0] = 120 + rng.integers(0, 8, blocks.shape[:2])
        return raw
    if type == QType.NVFP4:  # four scales a block, of a unit of 2^-10
        blocks[..., :4] = rng.integers(8, 40, (*blocks.shape[:2], 4))
        return raw
    for at in SCALES.get(type, (0,)):
        halves = rng.uniform(-scale, scale, blocks.shape[:2]).astype(np.float16)
        if type == QType.IQ1_M:  # four bits at the top of each of four words
            for i in range(4):
                nibbles = (halves.view(np.uint16) >> (4 * i) & 15).astype(np.uint8)
                blocks[..., 49 + 2 * i] = blocks[..., 49 + 2 * i] & 15 | nibbles << 4
            continue
        blocks[..., at : at + 2] = halves[..., None].view(np.uint8)
    return raw


def product(x: NDArray[np.float32], blocks: NDArray[np.uint8], type: QType) -> NDArray[np.float64]:
    """``x @ weights.T`` in float64."""
    return x.astype(np.float64) @ dequantize(blocks, type).T.astype(np.float64)


def rounding_bound(
    x: NDArray[np.float32], blocks: NDArray[np.uint8], type: QType
) -> NDArray[np.float64]:
    """How far an exact product with int8 input can be from ``product``: (T, rows).

    Each input is off by at most half a step, 1/254 of its block's largest; what float32 sums add
    is far less than the 1 % on top. Float types are off by float32 sums alone.
    """
    weights = np.abs(dequantize(blocks, type)).astype(np.float64)
    size = {1: 1, 256: 256}.get(block_layout(type)[0], 32)
    if size == 1:
        return 1e-6 * (np.abs(x).astype(np.float64) @ weights.T) + 1e-12
    largest = np.abs(x).reshape(len(x), -1, size).max(axis=2).astype(np.float64)
    steps = np.repeat(largest / 254, size, axis=1)
    return 1.01 * (steps @ weights.T) + 1e-5 * (np.abs(x) @ weights.T) + 1e-12


def linear(
    context: _native.Context, x: NDArray[np.float32], blocks: NDArray[np.uint8], type: QType
) -> NDArray[np.float32]:
    """One native product."""
    out = np.empty((len(x), len(blocks)), np.float32)
    context.linear(x, [context.matrix(blocks, int(type))], [out], [None])
    return out


def experts_of(
    rng: np.random.Generator, type: QType, down_type: QType, count: int, width: int, hidden: int
) -> list[NDArray[np.uint8]]:
    """Gate, up and down blocks of some experts: (count, rows, row_bytes)."""
    gate, up = (
        random_blocks(rng, type, count * width, hidden).reshape(count, width, -1) for _ in range(2)
    )
    return [
        gate,
        up,
        random_blocks(rng, down_type, count * hidden, width).reshape(count, hidden, -1),
    ]
