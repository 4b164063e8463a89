"""How rows of the KV cache are rounded and sized, against gguf's quantiser and the native code."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import quantize as gguf_quantize
from kv_held import Held
from native_blocks import ISAS

from moestream.backends.kv_blocks import last_of_rows
from moestream.backends.kv_rows import (
    BLOCK_POSITIONS,
    kv_row_bytes,
    quantize_q4_0,
    quantize_q8_0,
    read_rows,
    write_rows,
)
from moestream.backends.types import AttentionRule
from moestream.choices import KVType
from moestream.errors import UnsupportedModelError


@pytest.mark.parametrize(
    ("kv_type", "n_bytes"), [("f16", 256), ("f32", 512), ("q8_0", 136), ("q4_0", 72)]
)
def test_sizes_of_rows_and_buffers(kv_type, n_bytes: int) -> None:
    assert kv_row_bytes(128, kv_type) == n_bytes
    held = Held(2, 3, (128, 128), (kv_type, kv_type))
    assert held.store.stores.n_bytes == 2 * 2 * BLOCK_POSITIONS * n_bytes
    assert not read_rows(held.rows(0), kv_type).any()
    assert read_rows(held.rows(0), kv_type).shape == (2, 3, 128)


def test_heads_that_are_no_whole_blocks() -> None:
    assert kv_row_bytes(80, "f16") == 160
    with pytest.raises(UnsupportedModelError, match=r"heads of 80 .* of 32; .* f16 \(--cache-type"):
        kv_row_bytes(80, "q8_0")


def test_blocks_are_those_of_ggufs_quantiser() -> None:
    x = np.random.default_rng(0).standard_normal((3, 50, 64), np.float32) * 3
    ours = quantize_q8_0(x)
    theirs = gguf_quantize(x, GGMLQuantizationType.Q8_0)
    assert ours.shape == theirs.shape == (3, 50, 68)
    # The factor is one rounding from theirs: a code in thousands may fall on the other side.
    apart = ours.view(np.int8).astype(int) - theirs.view(np.int8)
    assert np.abs(apart).max() <= 1
    assert np.mean(apart != 0) < 1e-3


def test_blocks_of_four_bits_are_those_of_ggufs_quantiser() -> None:
    x = np.random.default_rng(0).standard_normal((3, 50, 64), np.float32) * 3
    np.testing.assert_array_equal(quantize_q4_0(x), gguf_quantize(x, GGMLQuantizationType.Q4_0))


# The largest code is 15: a value opposite the farthest one is up to a whole step away.
@pytest.mark.parametrize(("kv_type", "steps", "most"), [("q8_0", 127, 0.56), ("q4_0", 8, 1.01)])
def test_what_is_read_is_close_to_what_was_written(kv_type, steps: int, most: float) -> None:
    x = np.random.default_rng(1).standard_normal((5, 96), np.float32)
    buffer = np.zeros((1, 5, kv_row_bytes(96, kv_type)), np.uint8)
    write_rows(buffer[:, 1:4], x[None, 1:4], kv_type)
    step = np.abs(x[1:4].reshape(3, 3, 32)).max(-1).repeat(32, axis=1) / steps
    read = read_rows(buffer, kv_type)[0, 1:4]
    assert np.all(np.abs(read - x[1:4]) <= most * step)  # f16 scale included
    assert not buffer[:, [0, 4]].any()


def hard_rows() -> np.ndarray:
    """Blocks of zeros, ties, tiny and huge numbers, and of what is no number."""
    rows = np.random.default_rng(2).standard_normal((12, 64), np.float32)
    rows[0] = 0
    rows[1, :32] = np.arange(32) * 0.5 - 7.75  # with 127 as the largest, all are ties
    rows[1, 31] = 127
    rows[2] *= 1e-30
    rows[3] *= 1e-38
    rows[4] *= 1e30
    rows[5, 3] = np.nan
    rows[6, 40] = np.inf
    rows[7, 40] = -np.inf
    rows[8] *= 1e-7
    rows[9, :32] = -5
    rows[10, 31] = 8_323_072  # a scale beyond float16
    return rows


QUANTIZE = [("q8_0", quantize_q8_0), ("q4_0", quantize_q4_0)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kv_type", "quantize"), QUANTIZE)
def test_native_rows_have_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, isa: str, kv_type, quantize
) -> None:
    from moestream.backends.cpu import CpuBackend

    monkeypatch.setenv("MOESTREAM_ISA", isa)
    ops, rows = CpuBackend(2), hard_rows()[:, None]
    held = Held(1, 20, (64, 64), (kv_type, kv_type))
    held.attend(ops, np.ones_like(rows), rows, rows[::-1].copy(), 3, AttentionRule(1.0))
    keys, values = held.rows(0), held.rows(1)
    np.testing.assert_array_equal(keys[0, 3:15], quantize(rows[:, 0]))
    np.testing.assert_array_equal(values[0, 3:15], quantize(rows[::-1, 0]))
    assert not keys[:, :3].any()
    assert not keys[:, 15:].any()


@pytest.mark.parametrize(("kv_type", "quantize"), QUANTIZE)
def test_a_block_that_is_not_finite_is_nan_alone(kv_type, quantize) -> None:
    with np.errstate(all="ignore"):
        read = read_rows(quantize(hard_rows()), kv_type)
    for row, block in ((5, 0), (6, 1), (7, 1)):
        found = np.isnan(read[row].reshape(2, 32)).all(axis=1).tolist()
        assert found == [block == 0, block == 1]
    assert np.isfinite(np.delete(read, [4, 5, 6, 7, 10], axis=0)).all()


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("share", [20, 32, 40, 96])
def test_ends_of_rows_are_those_of_whole_ones(kv_type: KVType, share: int) -> None:
    held = Held(2, 600, (96, 32), (kv_type, kv_type), rng=np.random.default_rng(7))
    keys = held.store.stores.layers[1][0]
    whole = read_rows(held.rows(0)[:, :550], kv_type)
    expected = np.concatenate([head[:, -share:] for head in whole], axis=1)
    np.testing.assert_array_equal(last_of_rows(held.store, keys, 550, 2 * share), expected)
