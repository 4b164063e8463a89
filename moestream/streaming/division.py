"""Divides the memory for experts into slots, and makes the residency that uses them.

Owns how many slots there are of each size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moestream.choices import LayerBudget
from moestream.policies import PolicyFactory
from moestream.policies.layered import by_layer
from moestream.policies.shares import layer_slots
from moestream.streaming.reader import ExpertReader
from moestream.streaming.slot_table import SlotTable
from moestream.streaming.slots import SlotMaker
from moestream.streaming.slotted import SlotResidency
from moestream.streaming.store import ExpertStore

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
    maker: SlotMaker | None = None,
) -> SlotResidency:
    """Make slots within ``experts_bytes``, or have a ``maker`` make them, and what fills them."""
    addresses: NDArray[np.uint64] = np.zeros((store.num_keys, 3), np.uint64)
    classes = size_classes(reader.layout.slot_bytes) if maker is None else maker.classes
    tables = kept_tables(store, reader, addresses, division, experts_bytes, classes, maker)
    if maker is not None:
        reader.lay_out(_matrices(store, {layer: maker.table(layer) for layer in tables}))
    expert_bytes = {layer: experts.expert_bytes for layer, experts in store.layers.items()}
    return SlotResidency(
        *(reader, addresses, tables, expert_bytes, store.num_experts),
        whole_turns=maker is not None,
    )


def kept_tables(
    store: ExpertStore,
    reader: ExpertReader,
    addresses: NDArray[np.uint64],
    division: Division,
    n_bytes: int,
    classes: Mapping[int, list[int]],
    maker: SlotMaker | None = None,
) -> dict[int, SlotTable]:
    """Tables of slots for what is kept, by layer; ``classes`` are layers by bytes of a slot."""
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
    tables: dict[int, SlotTable] = {}
    for size, layers in classes.items():
        make_policy = division.make_policy
        if kind != "global":
            own = {layer: shares[layer] * size for layer in layers}
            make_policy = by_layer(
                kind, make_policy, own, store.num_experts, division.num_experts_per_tok
            )
        table = SlotTable(
            reader,
            addresses,
            slot_bytes=size,
            num_slots=slots[size],
            num_experts=store.num_experts * len(layers),
            spare=spare,
            make_policy=make_policy,
            make_slots=None if maker is None else partial(maker.make, layers[0]),
        )
        tables |= dict.fromkeys(layers, table)
    return tables


def _matrices(store: ExpertStore, tables: Mapping[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The tables of layers, by key: (K, 3, 10), zeros for layers without experts."""
    matrices = np.zeros((store.num_keys, *next(iter(tables.values())).shape), np.int64)
    for layer, table in tables.items():
        matrices[store.key(layer, 0) : store.key(layer + 1, 0)] = table
    return matrices


def size_classes(slot_bytes: Mapping[int, int]) -> dict[int, list[int]]:
    """Group layers by the size of their experts: bytes of a slot to the layers that share it."""
    classes: dict[int, list[int]] = {}
    for layer in sorted(slot_bytes, key=lambda layer: -slot_bytes[layer]):
        size = slot_bytes[layer]
        fitting = [slot for slot in classes if size >= slot * (1 - _SAME_CLASS)]
        classes.setdefault(min(fitting, default=size), []).append(layer)
    return classes
