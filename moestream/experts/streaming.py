"""Puts streaming together: from a file, options and a budget to a ``Residency``.

Owns the defaults and the choice of read and pin method. What was chosen can be asked of the
``Residency``. Knows no arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from moestream.errors import BudgetError, StorageError
from moestream.experts.arena import Landing
from moestream.experts.budgets import LayerBudget, split_budget
from moestream.experts.choose import choose_method
from moestream.experts.mapped import MappedResidency
from moestream.experts.policies import HALF_LIFE, POLICIES, PolicyFactory
from moestream.experts.pool import Pool
from moestream.experts.profiles import Profile
from moestream.experts.reads import READ_METHODS, ExpertReader, ReadMethod
from moestream.experts.residency import Residency
from moestream.experts.shares import by_layer, layer_slots
from moestream.experts.slots import SlotResidency
from moestream.experts.store import ExpertStore

PinMethod = Literal["copy", "mlock", "none"]

POLICY_SETTINGS = {"decay": ("half_life", "window"), "blend": ("half_life",)}
"""Which of the options each policy takes, if any."""
MOST_GUESSES = 2
"""Times as many experts as a token routes to may be guessed for a layer, where a guess is unsure.

Each costs room for two: with more, what is kept shrinks by more than guessing better brings.
"""
_LOCKED = 0.5
"""Share of the experts' memory that may be locked. With all of it, a capped run thrashed."""
_SAME_CLASS = 0.03
"""Experts whose sizes differ by less than this share slots of one size."""


@dataclass(frozen=True, slots=True)
class StreamingOptions:
    """What a user may choose. ``auto`` is decided when the file is opened.

    With a ``profile``, what its workload used most is read before the first token.
    """

    io: ReadMethod | Literal["auto"] = "auto"
    policy: str = "decay"
    pin: PinMethod | Literal["auto"] = "auto"
    prefetch: bool = True
    prefetch_layers: int = 1
    prefetch_mass: float | None = None
    half_life: float = HALF_LIFE
    window: int | None = None
    layer_budget: LayerBudget = "global"
    profile: Profile | None = None

    def factory(self) -> PolicyFactory:
        """Make the policy by name.

        Raises:
            BudgetError: no policy is called so.
        """
        if self.policy not in POLICIES:
            known = ", ".join(["none", *POLICIES])
            raise BudgetError(f"no policy is called {self.policy!r}; there are: {known}")
        if self.layer_budget not in get_args(LayerBudget):
            known = ", ".join(get_args(LayerBudget))
            raise BudgetError(
                f"no layer budget is called {self.layer_budget!r}; there are: {known}"
            )
        settings = {name: getattr(self, name) for name in POLICY_SETTINGS.get(self.policy, ())}
        return partial(POLICIES[self.policy], **settings)


def open_residency(
    store: ExpertStore,
    options: StreamingOptions,
    *,
    experts_bytes: int,
    num_experts_per_tok: int,
    landing: Landing | None = None,
) -> Residency:
    """Start streaming within ``experts_bytes``; with a ``landing``, into slots that it makes.

    Raises:
        BudgetError: an unknown policy or layer budget.
        StorageError: the file cannot be read by the method asked for.
    """
    factory = options.factory()
    if landing is None:
        method = _method(store, options, experts_bytes)
    else:
        method = _reading_method(store, options)
    reader = ExpertReader(store, method)
    try:
        if reader.method == "madvise":
            return _mapped(store, reader, options, factory, experts_bytes, num_experts_per_tok)
        return _slots(store, reader, options, factory, experts_bytes, num_experts_per_tok, landing)
    except BaseException:
        reader.close()
        raise


def _method(store: ExpertStore, options: StreamingOptions, experts_bytes: int) -> ReadMethod:
    if options.io != "auto":
        if options.io not in READ_METHODS:
            known = ", ".join(["auto", *READ_METHODS])
            raise StorageError(f"no read method is called {options.io!r}; there are: {known}")
        return options.io
    if options.pin == "copy" and experts_bytes >= store.total_bytes:
        return "pread"
    return "madvise" if options.pin in ("mlock", "none") else choose_method(store, experts_bytes)


def _reading_method(store: ExpertStore, options: StreamingOptions) -> ReadMethod:
    """One that reads into memory of our own: nothing can be multiplied where it is mapped."""
    if options.io == "madvise" or options.pin in ("mlock", "none"):
        asked = "--io madvise" if options.io == "madvise" else f"--pin {options.pin}"
        raise StorageError(
            f"{asked} maps experts, which this backend lays out anew in memory of its own; use "
            "--io pread or --io direct, or --backend cpu"
        )
    if options.io != "auto":
        return _method(store, options, 0)
    found = choose_method(store, 0)
    return "pread" if found == "madvise" else found


def _mapped(
    store: ExpertStore,
    reader: ExpertReader,
    options: StreamingOptions,
    factory: PolicyFactory,
    experts_bytes: int,
    num_experts_per_tok: int,
) -> Residency:
    sizes = [0] * store.num_keys
    for layer, experts in store.layers.items():
        first = store.key(layer, 0)
        sizes[first : first + store.num_experts] = [experts.expert_bytes] * store.num_experts
    addresses = reader.layout.parts.astype(np.uint64)
    fits = experts_bytes >= store.total_bytes
    wanted = options.pin == "mlock" or (options.pin == "auto" and not fits)
    # Locked pages cannot be given up for those that are paged in: both need room.
    room = min(int(experts_bytes * _LOCKED), store.total_bytes)
    if options.layer_budget != "global":
        layer_bytes = {layer: store.num_experts * n for layer, n in _expert_bytes(store).items()}
        shares = split_budget(options.layer_budget, room, layer_bytes)
        factory = by_layer(
            options.layer_budget, factory, shares, store.num_experts, num_experts_per_tok
        )
    policy = factory(sizes, room) if wanted and room and can_lock(reader, store) else None
    return MappedResidency(
        reader,
        addresses,
        policy,
        _expert_bytes(store),
        store.num_experts,
        room_bytes=experts_bytes,
        fits=fits,
    )


def can_lock(reader: ExpertReader, store: ExpertStore) -> bool:
    """Whether this process may lock more than a few pages: tried on one expert."""
    first = store.key(next(iter(store.layers)), 0)
    worked = reader.lock(first, True)
    reader.lock(first, False)
    return worked


def _slots(
    store: ExpertStore,
    reader: ExpertReader,
    options: StreamingOptions,
    factory: PolicyFactory,
    experts_bytes: int,
    num_experts_per_tok: int,
    landing: Landing | None,
) -> Residency:
    addresses: NDArray[np.uint64] = np.zeros((store.num_keys, 3), np.uint64)
    classes = size_classes(reader.layout.slot_bytes) if landing is None else landing.classes
    guesses = num_experts_per_tok * (1 if options.prefetch_mass is None else MOST_GUESSES)
    spare = 2 + 2 * guesses * max(options.prefetch_layers, 1)
    total = sum(slot_bytes * len(layers) for slot_bytes, layers in classes.items())
    # Each class gets the same share of what it would need to be wholly in memory.
    slots = {n: experts_bytes * len(layers) // total for n, layers in classes.items()}
    if options.layer_budget != "global":
        shares = layer_slots(options.layer_budget, classes, store.num_experts, slots, spare)
        slots = {
            n: sum(shares[layer] for layer in layers) + min(spare, slots[n])
            for n, layers in classes.items()
        }
    pools: dict[int, Pool] = {}
    for slot_bytes, layers in classes.items():
        make_policy = factory
        if options.layer_budget != "global":
            own = {layer: shares[layer] * slot_bytes for layer in layers}
            make_policy = by_layer(
                options.layer_budget, factory, own, store.num_experts, num_experts_per_tok
            )
        pool = Pool(
            reader,
            addresses,
            slot_bytes=slot_bytes,
            num_slots=slots[slot_bytes],
            num_experts=store.num_experts * len(layers),
            spare=spare,
            make_policy=make_policy,
            make_slots=None if landing is None else partial(landing.make, layers[0]),
        )
        pools |= dict.fromkeys(layers, pool)
    if landing is not None:
        reader.lay_out(_matrices(store, {layer: landing.table(layer) for layer in pools}))
    return SlotResidency(
        reader,
        addresses,
        pools,
        _expert_bytes(store),
        store.num_experts,
        whole_turns=landing is not None,
    )


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


def _expert_bytes(store: ExpertStore) -> dict[int, int]:
    return {layer: experts.expert_bytes for layer, experts in store.layers.items()}
