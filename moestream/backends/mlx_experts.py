"""Experts on MLX: where they lie, and the products of one batch of them.

Owns the order in which a batch is gathered, and when slots may be filled again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends.expert_tensors import Arrivals, ExpertTensors, StreamedExperts
from moestream.backends.mlx_arrays import MlxArrays
from moestream.backends.mlx_core import allocate, as_type, mx, on_gpu, options
from moestream.backends.mlx_weights import MLXSlots, Weight
from moestream.backends.reference_experts import route, weigh
from moestream.backends.types import Array, Gates, Routed, RouterGate, Routing


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


class MlxRouted(MlxArrays):
    """Part of the MLX ``Backend``; see there for shapes and meaning."""

    def experts(self, tensors: ExpertTensors | StreamedExperts) -> MlxExperts:
        """See ``MlxExperts.of``."""
        return MlxExperts.of(tensors)

    def expert_slots(self, tensors: ExpertTensors, num_slots: int) -> MLXSlots:
        """See ``empty_slots``."""
        return empty_slots(tensors, num_slots)

    def gates(self, gates: Sequence[RouterGate]) -> Gates | None:
        """Not here: a guess is computed by the wait for the layer's own routing."""
        return None

    def route(self, logits: Array, routing: Routing) -> Routed:
        """Wait for the logits, and choose on the CPU as the reference does: they are few."""
        ids, weights = route(self._device.fetch(logits), routing)
        on_device = self._device.send(weights)
        self._device.know(on_device)
        return ids, on_device

    def weigh(self, logits: Array, ids: NDArray[np.int32], routing: Routing) -> Routed:
        """Wait for the logits, as ``route`` does."""
        return ids, self._device.send(weigh(self._device.fetch(logits), ids, routing)[1])

    def moe_ffn(
        self, x: Array, experts: MlxExperts, routed: Routed, arrivals: Arrivals | None = None
    ) -> Array:
        """A batch of experts at a time, one call for each of its three matrices."""
        ids, weights = routed
        missing = set(ids.ravel().tolist())
        batches: list[Sequence[int]] = [list(missing)]
        outs, pairs = [], []
        for wanted in batches if arrivals is None else arrivals:
            batch = Batch.of(ids, wanted, experts)
            outs.append(self._run(x, experts, batch))
            pairs.append(batch.pairs)
            missing.difference_update(wanted)
            if missing:  # the next batch may be read into these slots
                self._device.evaluate(outs[-1])
        out = self._in_order(outs, np.concatenate(pairs)).reshape(*ids.shape, -1)  # (T, k, E)
        total = self._mx.sum(self._mx.multiply(out, weights[..., None]), axis=1)
        self._device.put_off(total)
        return total  # (T, E)

    def _run(self, x: Array, experts: MlxExperts, batch: Batch) -> Array:
        """Outputs (P, E) of a batch's pairs."""
        ops, slots, many = self._mx, experts.loaded(), len(x) > 1
        rows = ops.take(x, self._device.send(batch.tokens), axis=0) if many else x
        places = self._device.send(batch.slots)
        biases, scales = experts.mapped.biases, experts.mapped.scales
        chosen = self._device.send(batch.ids) if biases or scales else None

        def product(x: Array, part: int) -> Array:
            out = gather(ops, x, slots.weights[part], places, many)
            if scales is not None and part < 2:
                out = ops.multiply(out, ops.take(scales[part], chosen)[:, None, None])
            if biases is None:
                return out
            return ops.add(out, ops.take(biases[part], chosen, axis=0)[:, None])

        # No rows[:, None]: that leaves a stride of 1, which sorted float products take for a row's.
        rows = rows.reshape(len(rows), 1, -1)
        mapped = experts.mapped
        limits = mapped.limit, mapped.up_limit
        inner = self.glu(product(rows, 0), product(rows, 1), mapped.activation, *limits)
        return product(inner, 2)[:, 0]

    def _in_order(self, outs: list[Array], order: NDArray[np.int64]) -> Array:
        """Rows by (token, slot), of which ``order`` says where they came from."""
        out = outs[0] if len(outs) == 1 else self._mx.concatenate(outs)
        if np.array_equal(order, np.arange(len(order))):
            return out
        back = np.empty(len(order), np.int32)
        back[order] = np.arange(len(order))
        return self._mx.take(out, self._device.send(back), axis=0)
