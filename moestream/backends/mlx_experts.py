"""Experts on MLX: where they lie, and the products of one batch of them.

Owns the order in which a batch is gathered. When experts are in their slots is the caller's affair.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends.mlx_core import allocate, as_type, mx, on_gpu, options
from moestream.backends.mlx_weights import MLXSlots, Weight
from moestream.backends.types import Array, ExpertTensors, StreamedExperts


@dataclass(slots=True)
class MlxExperts:
    """A layer's experts: all in slots of its own, made when first asked for.

    Streamed, the slots are the residency's, and ``addresses`` (N, 3) have the slot of each expert.
    """

    mapped: ExpertTensors
    slots: MLXSlots | None
    addresses: NDArray[np.uint64] | None

    @classmethod
    def of(cls, tensors: ExpertTensors | StreamedExperts) -> "MlxExperts":
        """Experts in the residency's slots, or, once they are used, in slots for all."""
        if isinstance(tensors, StreamedExperts):
            return cls(tensors.mapped, tensors.slots, tensors.addresses)
        return cls(tensors, None, None)

    def loaded(self) -> MLXSlots:
        """The slots, filled now with all experts if nobody else fills it."""
        if self.slots is None:
            self.slots = all_in_slots(self.mapped)
        return self.slots

    def slots_of(self, ids: NDArray[np.int32]) -> NDArray[np.uint32]:
        """Where experts are now."""
        places = ids if self.addresses is None else self.addresses[ids, 0]
        return places.astype(np.uint32)


@dataclass(frozen=True, slots=True)
class Batch:
    """(token, expert) pairs that are computed together, in the order of their slots."""

    pairs: NDArray[np.int64]
    tokens: NDArray[np.int32]
    ids: NDArray[np.int32]
    slots: NDArray[np.uint32]

    @classmethod
    def of(cls, ids: NDArray[np.int32], wanted: Any, experts: MlxExperts) -> "Batch":
        """The pairs (of token and slot, flat) whose expert is among those wanted."""
        flat = ids.ravel()
        pairs = np.flatnonzero(np.isin(flat, wanted))
        slots = experts.slots_of(flat[pairs])
        order = np.argsort(slots, kind="stable") if len(ids) > 1 else np.arange(len(pairs))
        pairs = pairs[order]
        tokens = (pairs // ids.shape[1]).astype(np.int32)
        return cls(pairs, tokens, flat[pairs], slots[order])


def all_in_slots(tensors: ExpertTensors) -> MLXSlots:
    """All experts of a layer, laid out."""
    parts = (tensors.gate, tensors.up, tensors.down)
    slots = MLXSlots(*(allocate(part.type, part.shape) for part in parts))
    slots.fill(tensors)
    return slots


def empty_slots(tensors: ExpertTensors, num_slots: int) -> MLXSlots:
    """``num_slots`` slots for experts of this shape, for native threads to fill."""
    parts = (tensors.gate, tensors.up, tensors.down)
    return MLXSlots(*(allocate(p.type, (num_slots, *p.shape[1:])) for p in parts))


def gather(ops: Any, x: Array, weight: Weight, slots: Array, sorted_slots: bool) -> Array:
    """Each row of x (P or 1, 1, columns) with the matrix in its slot: (P, 1, rows)."""
    how = {"rhs_indices": slots, "sorted_indices": sorted_slots}
    if weight.layout.mode != "float":
        return ops.gather_qmm(x, *weight.arrays, **how, **options(weight.layout))
    (floats,) = weight.arrays
    x, matrices = as_type(ops, x, floats.dtype), floats.swapaxes(1, 2)
    if weight.layout.bits == 32 or on_gpu():
        out = ops.gather_mm(x, matrices, **how)
    else:  # on a CPU, MLX gathers no other floats
        out = ops.matmul(x, ops.take(matrices, slots, axis=0))
    return as_type(ops, out, mx.float32)
