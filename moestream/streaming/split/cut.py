"""Tables for experts of which only a head is kept: which bytes are head, which are tail.

The head of an expert is the first bytes of its slot, in whole pages; the tail is read at each use,
elsewhere. The arithmetic wants each matrix in one piece, at an address of its own: matrices that
lie in the head are used where they are, those of the tail where it is read, and of the one that is
cut, if any, the first rows are copied to where its others are read. So what is copied is less than
one matrix, while the tail is being read.

The two ways around the copy cost more. Releasing the pages of a whole slot's tail, and faulting
them in again at each use, costs more than the read that fills them (see ``slots``). Mapping the
same pages behind several heads takes two system calls an expert, and a file in memory, which not
every system has.

Source of keeping a part: MoEpic, arXiv 2509.08342.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.choices import ReadMethod
from moestream.streaming.layout import ALIGNMENT, Layout
from moestream.streaming.reader import ExpertReader
from moestream.streaming.store import ExpertStore


@dataclass(frozen=True, slots=True)
class SplitLayout(Layout):
    """A ``Layout`` of 2 K keys: ``key`` is an expert's head, ``key + K`` its tail.

    ``slot_bytes`` are a head's, by layer; a tail's are those of the layer as many layers further
    on as there are. ``first`` (K,) is the first of an expert's parts that is not wholly in its
    head; ``copied`` (K,) bytes of it are, at the end of the head.
    """

    first: NDArray[np.int64]
    copied: NDArray[np.int64]


def split_layout(store: ExpertStore, whole: Layout, shares: Mapping[int, float]) -> SplitLayout:
    """Cut the slots of a layout so that the head has its layer's share of the bytes.

    At least one page is head, and one is tail, but where the share is 1: there the head is all.
    """
    num_keys, num_layers = store.num_keys, store.num_keys // store.num_experts
    ranges = np.concatenate([whole.ranges, whole.ranges])
    parts = np.concatenate([whole.parts, whole.parts])
    first, copied = np.zeros((2, num_keys), np.int64)
    slot_bytes: dict[int, int] = {}
    for layer, size in whole.slot_bytes.items():
        keys = slice(store.key(layer, 0), store.key(layer + 1, 0))
        if shares[layer] == 1:
            slot_bytes[layer] = size
            continue
        tails = slice(keys.start + num_keys, keys.stop + num_keys)
        begins = whole.parts[keys]
        ends = begins + np.array(store.layers[layer].part_bytes)
        # Experts end in different pages of their slots: each is to have a tail.
        most = (int(ends[:, -1].min()) - 1) // ALIGNMENT
        cut = ALIGNMENT * min(max(round(shares[layer] * size / ALIGNMENT), 1), most)
        first[keys] = (ends <= cut).sum(axis=1)
        begin = np.take_along_axis(begins, first[keys, None], axis=1)[:, 0]
        copied[keys] = np.maximum(cut - begin, 0)
        base = min(cut, int(begin.min())) // ALIGNMENT * ALIGNMENT  # of the tail, in the slot
        ranges[keys], ranges[tails] = _cut(whole.ranges[keys], cut, base)
        parts[tails] -= base
        slot_bytes |= {layer: cut, layer + num_layers: size - base}
    return SplitLayout(ranges, parts, slot_bytes, first, copied)


def _cut(
    rows: NDArray[np.int64], cut: int, base: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranges (N, S, 5) up to ``cut`` in the slot, and from there on, relative to ``base``."""
    fd, offset, n_bytes, place, needed = np.moveaxis(rows, -1, 0)
    here = np.clip(cut - place, 0, n_bytes)
    head = (fd, offset, here, place, np.minimum(needed, here))
    tail = (fd, offset + here, n_bytes - here, place + here - base, np.maximum(needed - here, 0))
    return np.stack(head, axis=-1), np.stack(tail, axis=-1)


class SplitReader(ExpertReader):
    """Reads heads apart from tails; ``shares`` of the bytes, by layer, are the head."""

    layout: SplitLayout

    def __init__(self, store: ExpertStore, method: ReadMethod, shares: Mapping[int, float]) -> None:
        """See ``ExpertReader``. Not for what is mapped."""
        self._shares = shares
        super().__init__(store, method)

    def _make_layout(self) -> SplitLayout:
        return split_layout(self._store, super()._make_layout(), self._shares)

    def _expert_key(self, key: int) -> int:
        return key % self._store.num_keys
