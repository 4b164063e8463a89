"""Which share of an expert each layer keeps: as asked for, or what the configurator finds.

Owns the figures that the configurator is given on this machine. The finding is ``configurator``'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moestream.choices import LayerBudget, ReadMethod
from moestream.policies.configurator import ReadCost, configure_layers, typical_uses
from moestream.streaming.read_method import read_speed, sample_keys
from moestream.streaming.store import ExpertStore


@dataclass(frozen=True, slots=True)
class Setting:
    """What the choice is made for: ``layer_s`` is how long a layer computes for a token."""

    method: ReadMethod
    layer_budget: LayerBudget
    experts_bytes: int
    num_experts_per_tok: int
    layer_s: float


@dataclass(frozen=True, slots=True)
class Split:
    """The share of an expert that is kept, and where it was found out, each layer's part of all."""

    shares: Mapping[int, float]
    weights: Mapping[int, float] | None = None

    @property
    def is_split(self) -> bool:
        """Whether any layer keeps less than whole experts."""
        return min(self.shares.values(), default=1.0) < 1


def choose_split(
    store: ExpertStore,
    split: float | Literal["auto"],
    setting: Setting,
    rates: NDArray[np.float64] | None,
) -> Split:
    """Find the share of each layer, for experts that do not all fit as they are.

    For ``auto`` the disk's speed is measured. ``rates`` (K,) are a profile's uses by key; without,
    experts are taken to be used as unequally as on the traces that we have.

    Raises:
        StorageError, ModelFormatError: the disk cannot be read.
    """
    layers = list(store.layers)
    if split != "auto":
        return Split(dict.fromkeys(layers, float(split)))
    n = store.num_experts
    typical = typical_uses(n)
    uses = {layer: typical if rates is None else rates[layer * n :][:n] for layer in layers}
    sizes = {layer: experts.expert_bytes for layer, experts in store.layers.items()}
    kept = configure_layers(
        setting.layer_budget,
        uses,
        sizes,
        setting.experts_bytes,
        setting.num_experts_per_tok,
        ReadCost(read_speed(store, setting.method, sample_keys(store)), setting.layer_s),
    )
    shares = {layer: found.share for layer, found in kept.items()}
    if setting.layer_budget != "adaptive":
        return Split(shares)
    weights = {layer: kept[layer].count * shares[layer] * sizes[layer] for layer in layers}
    return Split(shares, weights)
