"""Encoders for the Q4_K and Q6_K block types, which the gguf package can only decode.

Owns: choosing scales and codes, and packing them as ggml lays them out. Knows nothing of models.
Every result is the same on every machine, bit for bit: only exactly rounded elementwise
operations are used, and sums are taken along the first axis, row after row.

Source: the layouts in ggml's ``ggml-common.h``; ``gguf.quants`` decodes what is written here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SUPER_BLOCK = 256
Q4_K_BYTES = 144
Q6_K_BYTES = 210

_CHUNK_SUPER_BLOCKS = 512  # 512 KiB of float32: the passes over a chunk stay in a core's cache
_Q4_STEPS = (15.0, 14.5, 14.0, 13.5, 15.5)
_Q6_STEPS = (-32.0, -31.0, -30.0, -33.0)

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def quantize_q4_k(values: Floats) -> Bytes:
    """Encode rows: (..., C) float32 -> (..., C / 256 * 144) bytes, 4.5 bits a value.

    Raises:
        ValueError: when C is not a multiple of 256.
    """
    return _by_chunks(values, Q4_K_BYTES, _encode_q4_k)


def quantize_q6_k(values: Floats) -> Bytes:
    """Encode rows: (..., C) float32 -> (..., C / 256 * 210) bytes, 6.5625 bits a value.

    Raises:
        ValueError: when C is not a multiple of 256.
    """
    return _by_chunks(values, Q6_K_BYTES, _encode_q6_k)


def _by_chunks(values: Floats, block_bytes: int, encode: Callable[[Floats], Bytes]) -> Bytes:
    *lead, columns = values.shape
    if columns % SUPER_BLOCK:
        raise ValueError(f"{columns} columns: K-quants need a multiple of {SUPER_BLOCK}")
    flat = values.reshape(-1, SUPER_BLOCK)
    out = np.empty((len(flat), block_bytes), np.uint8)
    for start in range(0, len(flat), _CHUNK_SUPER_BLOCKS):
        chunk = slice(start, start + _CHUNK_SUPER_BLOCKS)
        out[chunk] = encode(flat[chunk])
    return out.reshape(*lead, columns // SUPER_BLOCK * block_bytes)


def _lanes(blocks: Floats, size: int) -> Floats:
    """Sub-blocks as columns: (N, 256) -> (size, N * 256 / size)."""
    return np.ascontiguousarray(blocks.reshape(-1, size).T)


def _inverse(x: Floats) -> Floats:
    """1 / x, and 0 where x is 0."""
    inverse: Floats = np.divide(np.float32(1), x, out=np.zeros_like(x), where=x != 0)
    return inverse


# --- Q4_K: value = d * scale * q - dmin * minimum, q in 0..15, blocks of 32 ---


def _encode_q4_k(blocks: Floats) -> Bytes:
    lanes, count = _lanes(blocks, 32), len(blocks)
    scales, minima = (best.reshape(count, 8) for best in _fit_q4(lanes))
    d, scale_codes = _codes_of_scales(scales)
    dmin, minimum_codes = _codes_of_scales(minima)
    step = (d.astype(np.float32)[:, None] * scale_codes).reshape(-1)
    offset = (dmin.astype(np.float32)[:, None] * minimum_codes).reshape(-1)
    codes = np.clip(np.rint((lanes + offset) * _inverse(step)), 0, 15).astype(np.uint8)
    halves = codes.T.reshape(count, 4, 2, 32)
    packed = halves[:, :, 0] | (halves[:, :, 1] << 4)
    return np.concatenate(
        (
            d[:, None].view(np.uint8),
            dmin[:, None].view(np.uint8),
            _pack_six_bits(scale_codes.astype(np.uint8), minimum_codes.astype(np.uint8)),
            packed.reshape(count, 128),
        ),
        axis=1,
    )


def _fit_q4(lanes: Floats) -> tuple[Floats, Floats]:
    """Scale and (non-negative) minimum of each block: the best least-squares fit of some tries."""
    low = np.minimum(lanes.min(axis=0), 0)
    span = np.maximum(lanes.max(axis=0), 0) - low
    shifted, inverse = lanes - low, _inverse(span)
    total = np.add.reduce(lanes, axis=0)
    best_scale, best_minimum = span / np.float32(15), -low
    best_gain = np.full(len(low), -np.inf, np.float32)
    for steps in _Q4_STEPS:
        codes = np.clip(np.rint(shifted * (inverse * np.float32(steps))), 0, 15)
        scale, minimum, gain = _least_squares(lanes, codes, total)
        better = (gain > best_gain) & (scale > 0)
        best_gain = np.where(better, gain, best_gain)
        best_scale = np.where(better, scale, best_scale)
        best_minimum = np.where(better, minimum, best_minimum)
    return best_scale, best_minimum


def _least_squares(x: Floats, q: Floats, total: Floats) -> tuple[Floats, Floats, Floats]:
    """Best (scale, minimum) for x ~ scale * q - minimum, and the squares that it explains."""
    size = np.float32(len(x))
    sum_q, sum_qq = np.add.reduce(q, axis=0), np.add.reduce(q * q, axis=0)
    sum_qx = np.add.reduce(q * x, axis=0)
    scale = (size * sum_qx - sum_q * total) * _inverse(size * sum_qq - sum_q * sum_q)
    minimum = (scale * sum_q - total) / size
    # The format has no negative minimum: fall back on the fit through zero.
    through_zero = sum_qx * _inverse(sum_qq)
    scale = np.where(minimum < 0, through_zero, scale)
    minimum = np.maximum(minimum, 0)
    gain = np.float32(2) * (scale * sum_qx - minimum * total)
    gain -= scale * (scale * sum_qq - np.float32(2) * minimum * sum_q) + size * minimum * minimum
    return scale, minimum, gain


def _codes_of_scales(scales: Floats) -> tuple[NDArray[np.float16], Floats]:
    """Six-bit codes of the non-negative scales (N, 8) and the half-precision unit (N,)."""
    unit = (scales.max(axis=1) / np.float32(63)).astype(np.float16)
    codes = np.rint(scales * _inverse(unit.astype(np.float32))[:, None])
    return unit, np.clip(codes, 0, 63)


def _pack_six_bits(scales: Bytes, minima: Bytes) -> Bytes:
    """The 12 bytes that hold 8 scales and 8 minima of six bits: 2 x (N, 8) -> (N, 12)."""
    low_scales, high_scales = scales[:, :4], scales[:, 4:]
    low_minima, high_minima = minima[:, :4], minima[:, 4:]
    return np.concatenate(
        (
            low_scales | ((high_scales >> 4) << 6),
            low_minima | ((high_minima >> 4) << 6),
            (high_scales & 15) | ((high_minima & 15) << 4),
        ),
        axis=1,
    )


# --- Q6_K: value = d * scale * (q - 32), q in 0..63, signed scales, blocks of 16 ---


def _encode_q6_k(blocks: Floats) -> Bytes:
    lanes, count = _lanes(blocks, 16), len(blocks)
    scales = _fit_q6(lanes).reshape(count, 16)
    largest = np.take_along_axis(scales, np.abs(scales).argmax(axis=1)[:, None], axis=1)
    d = (largest / np.float32(-128)).astype(np.float16)
    unit = d.astype(np.float32)
    scale_codes = np.clip(np.rint(scales * _inverse(unit)), -128, 127)
    step = (unit * scale_codes).reshape(-1)
    codes = np.clip(np.rint(lanes * _inverse(step)) + 32, 0, 63).astype(np.uint8)
    quarters = codes.T.reshape(count, 2, 4, 32)
    low, high = quarters & 15, quarters >> 4
    ql = np.concatenate((low[:, :, 0] | (low[:, :, 2] << 4), low[:, :, 1] | (low[:, :, 3] << 4)), 2)
    qh = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
    return np.concatenate(
        (
            ql.reshape(count, 128),
            qh.reshape(count, 64),
            scale_codes.astype(np.int8).view(np.uint8),
            d.view(np.uint8),
        ),
        axis=1,
    )


def _fit_q6(lanes: Floats) -> Floats:
    """Signed scale of each block: the best least-squares fit of some tries."""
    peak = np.take_along_axis(lanes, np.abs(lanes).argmax(axis=0)[None], axis=0)[0]
    inverse = _inverse(peak)
    best_scale: Floats = peak / np.float32(-32)
    best_gain = np.zeros_like(peak)
    for steps in _Q6_STEPS:
        codes = np.clip(np.rint(lanes * (inverse * np.float32(steps))), -32, 31)
        sum_qx = np.add.reduce(codes * lanes, axis=0)
        scale = sum_qx * _inverse(np.add.reduce(codes * codes, axis=0))
        gain = scale * sum_qx
        better = gain > best_gain
        best_gain = np.where(better, gain, best_gain)
        best_scale = np.where(better, scale, best_scale)
    return best_scale
