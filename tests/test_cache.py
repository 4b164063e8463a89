"""Growth, limits, sharing and truncation of the KV cache."""

import numpy as np
import pytest

from moestream.backends.kv_blocks import BlockStore
from moestream.backends.reference import ReferenceBackend
from moestream.errors import ContextLengthError
from moestream.layers.cache import AttentionShape, Cache, Caches, RecurrentShape


def caches_of(capacity: int, *more) -> Caches:
    shapes = [AttentionShape(1, 2, 2)] * 2
    return Caches(ReferenceBackend(), [*shapes, *more], capacity=capacity, kv_types=("f32", "f32"))


def write(cache: Cache, value: float, tokens: int) -> None:
    """Append tokens whose keys and values are all one number."""
    cache.reserve(tokens)
    for position in range(cache.length, cache.length + tokens):
        for keys, values in cache.caches.stores.layers[:2]:
            block = cache.store.blocks[position // 256]
            keys.of(block)[:, position % 256] = value
            values.of(block)[:, position % 256] = -value
    cache.length += tokens


def read(cache: Cache) -> list[float]:
    if not cache.length:
        return []
    keys, values = cache.caches.stores.layers[1]
    found = [np.concatenate([p.of(b)[0, :, 0] for b in cache.store.blocks]) for p in (keys, values)]
    assert np.array_equal(found[0][: cache.length], -found[1][: cache.length])
    return found[0][: cache.length].tolist()


def test_grows_and_keeps_what_it_holds() -> None:
    cache = caches_of(10_000).new()
    write(cache, 1, 200)
    write(cache, 2, 1000)
    assert read(cache) == [1] * 200 + [2] * 1000


def test_refuses_what_does_not_fit() -> None:
    cache = caches_of(300).new()
    cache.length = 200
    with pytest.raises(ContextLengthError, match=r"200 tokens .* 101 more make 301, .* holds 300"):
        cache.reserve(101)


def test_truncates_only_backwards() -> None:
    cache = caches_of(300).new()
    write(cache, 1, 5)
    cache.truncate(3)
    assert cache.length == 3
    with pytest.raises(ValueError, match="3 cached positions to 4"):
        cache.truncate(4)


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 512, 600])
def test_what_is_shared_is_written_by_neither(length: int) -> None:
    caches = caches_of(2000)
    first = caches.new()
    write(first, 1, 600)
    second = first.fork(length)
    third = first.fork(length)
    write(second, 2, 300)
    write(first, 3, 10)
    first.truncate(min(300, length))
    write(first, 4, 5)
    assert read(second) == [1] * length + [2] * 300
    assert read(third) == [1] * length
    assert read(first) == [1] * min(300, length) + [4] * 5


def test_what_is_shared_counts_once_and_what_is_dropped_not_at_all() -> None:
    caches = caches_of(2000)
    block = caches.stores.block_bytes
    first = caches.new()
    write(first, 1, 600)
    assert caches.n_bytes == 3 * block
    second = first.fork(512)
    assert caches.n_bytes == 3 * block
    write(second, 2, 1)
    assert caches.n_bytes == 4 * block
    first.truncate(10)
    del second
    assert caches.n_bytes == block
    del first
    assert caches.n_bytes == 0


def test_a_store_copies_one_block_at_most() -> None:
    first = caches_of(2000).new()
    write(first, 1, 600)
    second = first.fork(600)
    write(second, 2, 1)
    mine, theirs = (set(map(id, c.store.blocks)) for c in (first, second))
    assert len(mine & theirs) == 2
    assert isinstance(second.store, BlockStore)


def test_a_recurrent_state_can_be_taken_back_to_where_a_copy_was_kept() -> None:
    caches = caches_of(300, RecurrentShape(((2, 3),)))
    first = caches.new()
    write(first, 1, 5)
    first.state(2)[0][:] = 7
    second = first.fork(5)
    first.state(2)[0][:] = 8
    assert (second.state(2)[0] == 7).all()
    assert (first.fork(0).state(2)[0] == 0).all()
    assert first.nearest(4) == 0
    with pytest.raises(ValueError, match="cannot be taken back; truncate to 0"):
        first.fork(4)
    first.keep_state()
    write(first, 1, 5)
    first.state(2)[0][:] = 9
    assert (first.nearest(10), first.nearest(10, torn=True), first.nearest(9)) == (10, 5, 5)
    third = first.fork(5)
    assert (third.state(2)[0] == 8).all()
    third.state(2)[0][:] = 10  # which is no part of the copy
    first.truncate(5)
    assert (first.state(2)[0] == 8).all()
    del second, third
    assert caches.n_bytes == caches.stores.n_bytes + 2 * 24  # the cache and its copy


def test_copies_of_states_become_rarer_the_older_they_are() -> None:
    caches = caches_of(100_000, RecurrentShape(((1,),)))
    cache = caches.new()
    for _ in range(200):
        cache.length += 256
        cache.keep_state()
    kept = [(cache.length - n) // 256 for n in cache.snapshots]
    assert kept[-4:] == [3, 2, 1, 0]
    assert 8 <= len(kept) <= 20
    assert all(older <= 3 * newer + 1 for newer, older in zip(kept[1:], kept, strict=False))
