"""Growth, limits and truncation of the KV cache."""

import numpy as np
import pytest

from moestream.backends.reference import ReferenceBackend
from moestream.errors import ContextLengthError
from moestream.layers.cache import AttentionShape, Cache


def cache_of(capacity: int) -> Cache:
    return Cache(
        ReferenceBackend(),
        [AttentionShape(1, 2, 2)] * 2,
        capacity=capacity,
        kv_types=("f32", "f32"),
    )


def test_grows_and_keeps_what_it_holds() -> None:
    cache = cache_of(10_000)
    keys, _ = cache.layer(1)
    keys[:, :200] = np.arange(200)[None, :, None]
    cache.length = 200
    cache.reserve(1000)
    grown, _ = cache.layer(1)
    assert grown.shape[1] >= 1200
    np.testing.assert_array_equal(grown[0, :200, 0], np.arange(200))


def test_grows_by_whole_rows_of_either_type() -> None:
    cache = Cache(
        ReferenceBackend(),
        [AttentionShape(2, 64, 64)] * 1,
        capacity=1000,
        kv_types=("q8_0", "f32"),
    )
    held = []
    for buffer in cache.layer(0):
        buffer[:, :300] = np.arange(256 * buffer.shape[2]).reshape(1, 256, -1)[:, :300] % 200
        held.append(buffer.copy())
    cache.length = 256
    cache.reserve(1)
    for buffer, before in zip(cache.layer(0), held, strict=True):
        assert buffer.dtype == before.dtype
        assert buffer.shape == (2, 320, before.shape[2])
        np.testing.assert_array_equal(buffer[:, :256], before)


def test_never_grows_beyond_its_capacity() -> None:
    cache = cache_of(300)
    cache.reserve(300)
    assert cache.layer(0)[0].shape[1] == 300


def test_refuses_what_does_not_fit() -> None:
    cache = cache_of(300)
    cache.length = 200
    with pytest.raises(ContextLengthError, match=r"200 tokens .* 101 more make 301, .* holds 300"):
        cache.reserve(101)


def test_truncates_only_backwards() -> None:
    cache = cache_of(300)
    cache.length = 5
    cache.truncate(3)
    assert cache.length == 3
    with pytest.raises(ValueError, match="3 cached positions to 4"):
        cache.truncate(4)
