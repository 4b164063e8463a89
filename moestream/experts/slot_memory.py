"""Divides the memory for experts into pools of slots, and makes the residency that uses them.

Owns how many slots there are of each size, for what is kept and for what passes through.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moestream.experts.arena import Landing
from moestream.experts.budgets import LayerBudget
from moestream.experts.policies import LRU, PolicyFactory
from moestream.experts.pool import Pool
from moestream.experts.reads import ExpertReader
from moestream.experts.residency import Residency
from moestream.experts.shares import by_layer, layer_slots
from moestream.experts.slots import SlotResidency
from moestream.experts.split_layout import SplitLayout
from moestream.experts.split_slots import SplitResidency
from moestream.experts.store import ExpertStore

_SAME_CLASS = 0.03
"""Experts whose sizes differ by less than this share slots of one size."""


@dataclass(frozen=True, slots=True)
class Division:
    """How memory is to be divided: who keeps what, and slots that are not for keeping.

    ``weights`` are the layers' parts of what is kept, where it is not ``kind`` that says so.
    """

    make_policy: PolicyFactory
    kind: LayerBudget
    spare: int
    num_experts_per_tok: int
    weights: Mapping[int, float] | None = None


def open_slots(
    store: ExpertStore,
    reader: ExpertReader,
    division: Division,
    experts_bytes: int,
    landing: Landing | None = None,
) -> Residency:
    """Make slots within ``experts_bytes``; of heads and tails, if the reader's layout is split.

    A ``landing`` makes them itself, for whole experts.
    """
    expert_bytes = {layer: experts.expert_bytes for layer, experts in store.layers.items()}
    layout = reader.layout
    if not isinstance(layout, SplitLayout):
        addresses: NDArray[np.uint64] = np.zeros((store.num_keys, 3), np.uint64)
        classes = size_classes(layout.slot_bytes) if landing is None else landing.classes
        pools = _pools(store, reader, addresses, division, experts_bytes, classes, landing)
        if landing is not None:
            reader.lay_out(_matrices(store, {layer: landing.table(layer) for layer in pools}))
        return SlotResidency(
            *(reader, addresses, pools, expert_bytes, store.num_experts),
            whole_turns=landing is not None,
        )
    addresses = np.zeros((2 * store.num_keys, 3), np.uint64)
    sizes = {layer: n for layer, n in layout.slot_bytes.items() if layer not in store.layers}
    tails = _passing(store, reader, addresses, division.spare, sizes)
    taken = sum(pool.arena.n_bytes for pool in {id(pool): pool for pool in tails.values()}.values())
    heads = _pools(
        store,
        reader,
        addresses[: store.num_keys],
        division,
        max(experts_bytes - taken, 0),
        size_classes({layer: layout.slot_bytes[layer] for layer in store.layers}),
    )
    return SplitResidency(reader, layout, addresses, heads | tails, store.num_experts)


def _pools(
    store: ExpertStore,
    reader: ExpertReader,
    addresses: NDArray[np.uint64],
    division: Division,
    n_bytes: int,
    classes: Mapping[int, list[int]],
    landing: Landing | None = None,
) -> dict[int, Pool]:
    """Pools for what is kept, by layer."""
    kind, spare = division.kind, division.spare
    total = sum(size * len(layers) for size, layers in classes.items())
    # Each class gets the same share of what it would need to be wholly in memory.
    slots = {size: n_bytes * len(layers) // total for size, layers in classes.items()}
    if kind != "global":
        shares = layer_slots(kind, classes, store.num_experts, slots, spare, division.weights)
        slots = {
            size: sum(shares[layer] for layer in layers) + min(spare, slots[size])
            for size, layers in classes.items()
        }
    pools: dict[int, Pool] = {}
    for size, layers in classes.items():
        make_policy = division.make_policy
        if kind != "global":
            own = {layer: shares[layer] * size for layer in layers}
            make_policy = by_layer(
                kind, make_policy, own, store.num_experts, division.num_experts_per_tok
            )
        pool = Pool(
            reader,
            addresses,
            slot_bytes=size,
            num_slots=slots[size],
            num_experts=store.num_experts * len(layers),
            spare=spare,
            make_policy=make_policy,
            make_slots=None if landing is None else partial(landing.make, layers[0]),
        )
        pools |= dict.fromkeys(layers, pool)
    return pools


def _matrices(store: ExpertStore, tables: Mapping[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The tables of layers, by key: (K, 3, 10), zeros for layers without experts."""
    matrices = np.zeros((store.num_keys, *next(iter(tables.values())).shape), np.int64)
    for layer, table in tables.items():
        matrices[store.key(layer, 0) : store.key(layer + 1, 0)] = table
    return matrices


def _passing(
    store: ExpertStore,
    reader: ExpertReader,
    addresses: NDArray[np.uint64],
    count: int,
    slot_bytes: Mapping[int, int],
) -> dict[int, Pool]:
    """Pools that keep nothing, by layer: what is in them is used, or guessed, and goes."""
    pools: dict[int, Pool] = {}
    for size, layers in size_classes(slot_bytes).items():
        count = min(count, store.num_experts * len(layers))
        pool = Pool(
            reader,
            addresses,
            slot_bytes=size,
            num_slots=count,
            num_experts=max(count, 2) + 1,  # never room for all: then they would be kept
            spare=count,
            make_policy=LRU,
        )
        pools |= dict.fromkeys(layers, pool)
    return pools


def size_classes(slot_bytes: Mapping[int, int]) -> dict[int, list[int]]:
    """Group layers by the size of their experts: bytes of a slot to the layers that share it."""
    classes: dict[int, list[int]] = {}
    for layer in sorted(slot_bytes, key=lambda layer: -slot_bytes[layer]):
        size = slot_bytes[layer]
        fitting = [slot for slot in classes if size >= slot * (1 - _SAME_CLASS)]
        classes.setdefault(min(fitting, default=size), []).append(layer)
    return classes
