"""Makes the residency of parts, as far as parts are what waits least.

Owns how memory is divided between heads and tails.

Source: MoEpic, arXiv 2509.08342.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moestream.choices import ReadMethod
from moestream.errors import BudgetError
from moestream.policies import LRU
from moestream.streaming.division import Division, kept_tables, open_slots, size_classes
from moestream.streaming.reader import ExpertReader
from moestream.streaming.residency import Residency
from moestream.streaming.slot_table import SlotTable
from moestream.streaming.slots import SlotMaker
from moestream.streaming.slotted import SlotResidency
from moestream.streaming.split.choice import Setting, choose_split
from moestream.streaming.split.cut import SplitReader
from moestream.streaming.split.parts import SplitResidency
from moestream.streaming.store import ExpertStore


@dataclass(frozen=True, slots=True)
class Cut:
    """What is asked for, and what the choice goes by where ``split`` is ``auto``.

    ``rates`` (K,) are a profile's uses by key; ``layer_s`` measures how long a layer computes.
    """

    split: float | Literal["auto"]
    method: ReadMethod
    rates: NDArray[np.float64] | None
    layer_s: Callable[[], float]


def open_split(
    store: ExpertStore,
    cut: Cut,
    division: Division,
    experts_bytes: int,
    maker: SlotMaker | None,
) -> Residency:
    """Start streaming parts of experts; whole ones where ``auto`` finds that they wait least.

    Raises:
        BudgetError: experts are not read into slots of our own.
        StorageError: the file cannot be read by the method.
    """
    if maker is not None:
        raise BudgetError(
            f"--stream split={cut.split} keeps parts of experts, which this backend lays out whole;"
            " leave it out, or use --backend cpu"
        )
    if cut.method == "madvise":
        raise BudgetError(
            "a split keeps parts of experts in memory of its own, and madvise reads none there; "
            "use pread or direct"
        )
    layer_s = cut.layer_s() if cut.split == "auto" else 0.0
    setting = Setting(
        cut.method, division.kind, experts_bytes, division.num_experts_per_tok, layer_s
    )
    found = choose_split(store, cut.split, setting, cut.rates)
    division = replace(division, weights=found.weights)
    reader = (
        SplitReader(store, cut.method, found.shares)
        if found.is_split
        else ExpertReader(store, cut.method)
    )
    try:
        made: SlotResidency
        if isinstance(reader, SplitReader):
            made = _parts(store, reader, division, experts_bytes)
        else:
            made = open_slots(store, reader, division, experts_bytes)
    except BaseException:
        reader.close()
        raise
    made.shares = found.shares
    return made


def _parts(
    store: ExpertStore, reader: SplitReader, division: Division, experts_bytes: int
) -> SplitResidency:
    layout, addresses = reader.layout, np.zeros((2 * store.num_keys, 3), np.uint64)
    sizes = {layer: n for layer, n in layout.slot_bytes.items() if layer not in store.layers}
    tails = _passing_tables(store, reader, addresses, division.spare, sizes)
    taken = sum(table.memory.n_bytes for table in set(tails.values()))
    heads = kept_tables(
        store,
        reader,
        addresses[: store.num_keys],
        division,
        max(experts_bytes - taken, 0),
        size_classes({layer: layout.slot_bytes[layer] for layer in store.layers}),
    )
    return SplitResidency(reader, layout, addresses, heads | tails, store.num_experts)


def _passing_tables(
    store: ExpertStore,
    reader: ExpertReader,
    addresses: NDArray[np.uint64],
    count: int,
    slot_bytes: Mapping[int, int],
) -> dict[int, SlotTable]:
    """Tables that keep nothing, by layer: what is in their slots is used, or guessed, and goes."""
    tables: dict[int, SlotTable] = {}
    for size, layers in size_classes(slot_bytes).items():
        slots = min(count, store.num_experts * len(layers))
        table = SlotTable(
            reader,
            addresses,
            slot_bytes=size,
            num_slots=slots,
            num_experts=max(slots, 2) + 1,  # never room for all: then they would be kept
            spare=slots,
            make_policy=LRU,
        )
        tables |= dict.fromkeys(layers, table)
    return tables
