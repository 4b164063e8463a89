"""Puts streaming together: from a file, options and a budget to a ``Residency``.

Owns the choice of read and pin method. What was chosen can be asked of the ``Residency``. Knows no
arithmetic.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moestream.choices import ReadMethod
from moestream.errors import StorageError
from moestream.policies import POLICIES, PolicyFactory
from moestream.policies.layered import by_layer
from moestream.policies.shares import split_budget
from moestream.streaming.division import Division, open_slots
from moestream.streaming.mapped import MappedResidency
from moestream.streaming.options import MOST_GUESSES, StreamingOptions
from moestream.streaming.read_method import choose_method
from moestream.streaming.reader import ExpertReader
from moestream.streaming.residency import Residency
from moestream.streaming.slots import SlotMaker
from moestream.streaming.split.build import Cut, open_split
from moestream.streaming.store import ExpertStore

_LOCKED = 0.5
"""Share of the experts' memory that may be locked. With all of it, a capped run thrashed."""


def open_residency(
    store: ExpertStore,
    options: StreamingOptions,
    *,
    experts_bytes: int,
    num_experts_per_tok: int,
    gives_way: bool = False,
    rates: NDArray[np.float64] | None = None,
    layer_s: Callable[[], float] = lambda: 0.0,
    maker: SlotMaker | None = None,
) -> Residency:
    """Start streaming within ``experts_bytes``, of which some ``gives_way`` as the context grows.

    ``rates`` (K,) are uses a token by key, where a profile tells them, and ``layer_s`` measures how
    long a layer computes: a ``split`` of ``auto`` goes by both. With a ``maker``, experts are read
    into slots that it makes.

    Raises:
        BudgetError: a split that cannot be.
        StorageError: the file cannot be read by the method asked for.
    """
    factory = policy_factory(options)
    choose = _method if maker is None else _reading_method
    most = store.total_bytes - 1 if gives_way else experts_bytes
    method = choose(store, options, min(experts_bytes, most))
    division = Division(
        factory, options.layer_budget, _spare(options, num_experts_per_tok), num_experts_per_tok
    )
    if options.split != 1 and experts_bytes < store.total_bytes:
        cut = Cut(options.split, method, rates, layer_s)
        return open_split(store, cut, division, experts_bytes, maker)
    reader = ExpertReader(store, method)
    try:
        if method == "madvise":
            fits = experts_bytes >= store.total_bytes and not gives_way
            return _mapped(store, reader, options, division, experts_bytes, fits)
        return open_slots(store, reader, division, experts_bytes, maker)
    except BaseException:
        reader.close()
        raise


def policy_factory(options: StreamingOptions) -> PolicyFactory:
    """What makes the policy that was chosen, with its settings."""
    return partial(POLICIES[options.policy], **options.policy_settings)


def spare_slots(guesses: int, layers_ahead: int) -> int:
    """Slots for what is not kept: two, and for the guesses of this turn and of those to come."""
    return 2 + 2 * guesses * max(layers_ahead, 1)


def _spare(options: StreamingOptions, num_experts_per_tok: int) -> int:
    guesses = num_experts_per_tok * (1 if options.prefetch_mass is None else MOST_GUESSES)
    return spare_slots(guesses, options.prefetch_layers)


def _method(store: ExpertStore, options: StreamingOptions, experts_bytes: int) -> ReadMethod:
    if options.io != "auto":
        return options.io
    if options.pin == "copy" and experts_bytes >= store.total_bytes:
        return "pread"
    return "madvise" if options.pin in ("mlock", "none") else choose_method(store, experts_bytes)


def _reading_method(
    store: ExpertStore, options: StreamingOptions, experts_bytes: int
) -> ReadMethod:
    """One that reads experts, where they are not multiplied as they lie in the file."""
    if options.io == "madvise" or options.pin in ("mlock", "none"):
        asked = "--io madvise" if options.io == "madvise" else f"--stream pin={options.pin}"
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
    division: Division,
    experts_bytes: int,
    fits: bool,
) -> Residency:
    sizes = [0] * store.num_keys
    for layer, experts in store.layers.items():
        first = store.key(layer, 0)
        sizes[first : first + store.num_experts] = [experts.expert_bytes] * store.num_experts
    addresses = reader.layout.parts.astype(np.uint64)
    wanted = options.pin == "mlock" or (options.pin == "auto" and not fits)
    # Locked pages cannot be given up for those that are paged in: both need room.
    room = min(int(experts_bytes * _LOCKED), store.total_bytes)
    factory = division.make_policy
    if options.layer_budget != "global":
        layer_bytes = {layer: store.num_experts * n for layer, n in _expert_bytes(store).items()}
        shares = split_budget(options.layer_budget, room, layer_bytes)
        factory = by_layer(
            options.layer_budget, factory, shares, store.num_experts, division.num_experts_per_tok
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
