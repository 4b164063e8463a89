"""Chooses a read method where the user leaves it open: by the budget and a short measurement.

Where all experts fit, the page cache holds them best: nothing is copied, and the next start finds
them there. Where they do not, they are read into memory of our own, around the page cache, for it
would keep a second copy and evict dense weights; unless this file lies in the page cache already.
Speed alone does not tell that: a disk that wakes up, or has a quota, may read the second time
faster.
"""

import os
import random
import time

from moestream.choices import ReadMethod
from moestream.errors import StorageError
from moestream.streaming.reader import ExpertReader
from moestream.streaming.slots import AnonymousSlots
from moestream.streaming.store import ExpertStore

_SAMPLE = 6
"""Experts read by each method: about 10 ms where they are not cached."""
_CACHED = 2.0
"""How much faster than the disk the page cache must be to be worth reading through."""


def choose_method(store: ExpertStore, experts_bytes: int) -> ReadMethod:
    """Pick the read method for so many bytes of experts in memory."""
    if experts_bytes >= store.total_bytes:
        return "madvise"
    sample = sample_keys(store, 2 * _SAMPLE)
    half, cached = len(sample) // 2, _mostly_cached(store, sample)
    try:
        around = read_speed(store, "direct", sample[:half])
    except StorageError:  # a file system in memory, or some over the network
        return "pread"
    if cached is False:
        return "direct"
    through = read_speed(store, "pread", sample[half:])
    return "pread" if through > _CACHED * around else "direct"


def sample_keys(store: ExpertStore, count: int = _SAMPLE) -> list[int]:
    """Some experts, as far apart as chance will have it."""
    keys = [
        store.key(layer, expert) for layer in store.layers for expert in range(store.num_experts)
    ]
    return random.Random(0).sample(keys, min(count, len(keys)))


def _mostly_cached(store: ExpertStore, keys: list[int]) -> bool | None:
    """Whether at least half of them are in the page cache; None where the system does not tell."""
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    cached = 0
    for key in keys:
        segment = store.layers[key // store.num_experts].segments(key % store.num_experts)[-1]
        try:
            cached += _is_cached(store.descriptor(segment.shard), segment.offset, segment.n_bytes)
        except OSError:  # not on this file system
            return None
    return 2 * cached >= len(keys)


def _is_cached(descriptor: int, offset: int, n_bytes: int) -> bool:
    try:
        got = os.preadv(descriptor, [bytearray(n_bytes)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    return got == n_bytes


def read_speed(store: ExpertStore, method: ReadMethod, keys: list[int]) -> float:
    """Bytes a second at which experts are read by a method, several at once.

    Raises:
        StorageError, ModelFormatError: they cannot be.
    """
    with ExpertReader(store, method) as reader:
        memory = AnonymousSlots(max(reader.layout.slot_bytes.values()), max(len(keys), 1))
        reader.hold(memory)
        started = time.perf_counter()
        for slot, key in enumerate(keys):
            reader.submit(key, memory.slot_address(slot), False, 0)
        left = list(keys)
        while left:
            for key in reader.wait_any(left):
                left.remove(key)
        elapsed = time.perf_counter() - started
        n_bytes = sum(store.layers[key // store.num_experts].expert_bytes for key in keys)
        return n_bytes / elapsed
