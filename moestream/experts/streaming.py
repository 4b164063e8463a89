"""Puts streaming together: from a file, options and a budget to a ``Residency``.

Owns the defaults and the choice of read and pin method. What was chosen can be asked of the
``Residency``. Knows no arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np

from moestream.errors import BudgetError, StorageError
from moestream.experts.arena import Landing
from moestream.experts.budgets import LayerBudget, split_budget
from moestream.experts.choose import choose_method
from moestream.experts.mapped import MappedResidency
from moestream.experts.policies import HALF_LIFE, POLICIES, PolicyFactory
from moestream.experts.profiles import Profile
from moestream.experts.reads import READ_METHODS, ExpertReader, ReadMethod
from moestream.experts.residency import Residency
from moestream.experts.shares import by_layer
from moestream.experts.slot_memory import Division, open_slots
from moestream.experts.split_choice import Setting, check_split, choose_split
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


@dataclass(frozen=True, slots=True)
class StreamingOptions:
    """What a user may choose. ``auto`` is decided when the file is opened.

    With a ``split`` below 1, of an expert that is kept only that share of its bytes is in memory.
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
    split: float | Literal["auto"] = 1.0
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
    layer_s: float = 0.0,
    landing: Landing | None = None,
) -> tuple[Residency, Mapping[int, float]]:
    """Start streaming within ``experts_bytes``; tell which share of an expert each layer keeps.

    ``layer_s`` is how long a layer computes, of which a ``split`` of ``auto`` makes use. With a
    ``landing``, experts are read into slots that it makes, and wholly.

    Raises:
        BudgetError: an unknown policy or layer budget, or a split that cannot be.
        StorageError: the file cannot be read by the method asked for.
    """
    factory = options.factory()
    check_split(options.split)
    if landing is None:
        method = _method(store, options, experts_bytes)
    else:
        method = _reading_method(store, options)
    if method == "madvise" and options.split != 1 and experts_bytes < store.total_bytes:
        raise BudgetError(
            "a split keeps parts of experts in memory of its own, and madvise reads none there; "
            "use pread or direct"
        )
    split = choose_split(
        store,
        options.split,
        Setting(method, options.layer_budget, experts_bytes, num_experts_per_tok, layer_s),
        None if options.profile is None else options.profile.key_rates(),
    )
    reader = ExpertReader(store, method, shares=split.shares if split.is_split else None)
    try:
        if method == "madvise":
            made = _mapped(store, reader, options, factory, experts_bytes, num_experts_per_tok)
        else:
            spare = _spare(options, num_experts_per_tok)
            kind, weights = options.layer_budget, split.weights
            division = Division(factory, kind, spare, num_experts_per_tok, weights)
            made = open_slots(store, reader, division, experts_bytes, landing)
    except BaseException:
        reader.close()
        raise
    return made, split.shares


def _spare(options: StreamingOptions, num_experts_per_tok: int) -> int:
    """Slots for what is not kept: two, and for the guesses of this turn and of those to come."""
    guesses = num_experts_per_tok * (1 if options.prefetch_mass is None else MOST_GUESSES)
    return 2 + 2 * guesses * max(options.prefetch_layers, 1)


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
    """One that reads whole experts, where they are not multiplied as they lie in the file."""
    if options.split != 1:
        raise BudgetError(
            f"--split {options.split} keeps parts of experts, which this backend lays out whole; "
            "use --split 1, or --backend cpu"
        )
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


def _expert_bytes(store: ExpertStore) -> dict[int, int]:
    return {layer: experts.expert_bytes for layer, experts in store.layers.items()}
