"""Slots that the backend makes for streamed experts, where it does not take them as in the file.

Joins a backend's ``expert_slots`` to what ``streaming`` asks of a ``SlotMaker``. Knows neither what
a slot looks like nor who is in it.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from moestream.backends import ExpertSlots, ExpertTensors, MakeSlots
from moestream.layers.moe import MoE

Kind = tuple[object, ...]
"""Types and shapes of gate, up and down: layers of one kind can share slots."""


class BackendSlots:
    """A ``SlotMaker`` for the experts of some layers."""

    def __init__(self, moes: Mapping[int, MoE], make: MakeSlots) -> None:
        self._moes = moes
        self._make = make
        kinds: dict[Kind, list[int]] = {}
        for layer, moe in moes.items():
            kinds.setdefault(_kind(moe.tensors), []).append(layer)
        self.classes: dict[int, list[int]] = {}
        for layers in kinds.values():
            slot_bytes = _slot_bytes(moes[layers[0]])
            while slot_bytes in self.classes:  # kinds of one size stay apart
                slot_bytes += 1
            self.classes[slot_bytes] = layers
        self.by_layer: dict[int, ExpertSlots] = {}

    @classmethod
    def of(cls, moes: Mapping[int, MoE]) -> "BackendSlots | None":
        """For the backend that these layers run on; None if it takes experts as in the file."""
        make = next(iter(moes.values())).backend.expert_slots
        return None if make is None else cls(moes, make)

    def make(self, layer: int, num_slots: int) -> ExpertSlots:
        """See ``SlotMaker.make``."""
        slots: ExpertSlots = self._make(self._moes[layer].tensors, num_slots)
        sharing = next(layers for layers in self.classes.values() if layer in layers)
        self.by_layer |= dict.fromkeys(sharing, slots)
        return slots

    def table(self, layer: int) -> NDArray[np.int64]:
        """See ``SlotMaker.table``."""
        return self.by_layer[layer].table()


def _kind(tensors: ExpertTensors) -> Kind:
    parts = (tensors.gate, tensors.up, tensors.down)
    return tuple((part.type, part.shape[1:]) for part in parts)


def _slot_bytes(moe: MoE) -> int:
    parts = (moe.tensors.gate, moe.tensors.up, moe.tensors.down)
    return (
        sum(moe.backend.resident_bytes(part.type, part.shape) for part in parts) // moe.num_experts
    )
