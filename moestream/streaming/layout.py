"""Tables for the native reader: the byte ranges of every expert, and where each one goes.

A slot holds one expert: its ranges one after another, each begun at the same distance from a page
as in the file, so that ``O_DIRECT`` can read it whole pages at a time without a copy. Knows
nothing of which slot an expert is in.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.streaming.store import ExpertStore, LayerExperts

ALIGNMENT = 4096
"""What ``O_DIRECT`` wants of offsets, lengths and addresses, on every disk we know of."""

FIELDS = ("fd", "offset", "n_bytes", "place", "needed")
"""Columns of ``Layout.ranges``, as in ``native/io/reader.h``."""


@dataclass(frozen=True, slots=True)
class Layout:
    """``ranges`` (K, S, 5) as ``FIELDS``; ``parts`` (K, 3) says where gate, up and down begin.

    Both are relative to a slot, of which an expert of a layer needs ``slot_bytes[layer]``, or are
    addresses in memory when the file is ``mapped``.
    """

    ranges: NDArray[np.int64]
    parts: NDArray[np.int64]
    slot_bytes: dict[int, int]


def slot_layout(store: ExpertStore, descriptors: list[int]) -> Layout:
    """Lay experts out for reading into slots, through one descriptor a shard."""
    ranges, parts = _tables(store)
    slot_bytes: dict[int, int] = {}
    for layer, experts in store.layers.items():
        keys = _keys_of(store, layer)
        place = np.zeros(store.num_experts, np.int64)
        for index, (offsets, size) in enumerate(_offsets(store, experts)):
            lead = offsets % ALIGNMENT
            n_bytes = _aligned(lead + size)
            fd = descriptors[experts.tensors[index].shard]
            columns = (np.full_like(place, fd), offsets - lead, n_bytes, place, lead + size)
            ranges[keys, index] = np.stack(columns, axis=1)
            _set_parts(parts, keys, experts, index, place + lead)
            place = place + n_bytes
        slot_bytes[layer] = int(place.max())
    return Layout(ranges, parts, slot_bytes)


def mapped_layout(store: ExpertStore) -> Layout:
    """Lay experts out where the file's mapping has them."""
    ranges, parts = _tables(store)
    for layer, experts in store.layers.items():
        keys = _keys_of(store, layer)
        for index, (offsets, size) in enumerate(_offsets(store, experts)):
            tensor = experts.tensors[index]
            base = store.file.tensor(tensor.name).data.ctypes.data
            addresses = base + offsets - tensor.offset
            sizes = np.full_like(offsets, size)
            fds = np.full_like(offsets, store.descriptor(tensor.shard))
            ranges[keys, index] = np.stack((fds, offsets, sizes, addresses, sizes), axis=1)
            _set_parts(parts, keys, experts, index, addresses)
    return Layout(ranges, parts, dict.fromkeys(store.layers, 0))


def _tables(store: ExpertStore) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    most = max((len(layer.tensors) for layer in store.layers.values()), default=1)
    return (
        np.zeros((store.num_keys, most, len(FIELDS)), np.int64),
        np.zeros((store.num_keys, 3), np.int64),
    )


def _keys_of(store: ExpertStore, layer: int) -> slice:
    return slice(store.key(layer, 0), store.key(layer + 1, 0))


def _offsets(store: ExpertStore, experts: LayerExperts) -> list[tuple[NDArray[np.int64], int]]:
    """For each tensor, where each expert begins in its file, and the bytes of one."""
    numbers = np.arange(store.num_experts, dtype=np.int64)
    sizes = [tensor.n_bytes // store.num_experts for tensor in experts.tensors]
    return [
        (tensor.offset + numbers * size, size)
        for tensor, size in zip(experts.tensors, sizes, strict=True)
    ]


def _set_parts(
    parts: NDArray[np.int64],
    keys: slice,
    experts: LayerExperts,
    index: int,
    begins: NDArray[np.int64],
) -> None:
    if experts.up_offset is None:
        parts[keys, index] = begins
    elif index == 0:  # gate's rows come first
        parts[keys, 0], parts[keys, 1] = begins, begins + experts.up_offset
    else:
        parts[keys, 2] = begins


def _aligned(n_bytes: NDArray[np.int64]) -> NDArray[np.int64]:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT
