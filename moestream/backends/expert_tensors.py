"""Routed experts of a layer, in the file or as they come into memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moestream.backends.types import Activation, Array
from moestream.gguf import Tensor

Bytes = NDArray[np.uint8]

Arrivals = Iterable[Sequence[int]]
"""Expert ids in batches, as they come into memory."""

ExpertBiases = tuple[Array, Array, Array]
"""Biases of gate, up and down: (N, F) twice, (N, E)."""


@dataclass(frozen=True, slots=True)
class ExpertTensors:
    """One layer's routed experts, left where they lie in the mapped file.

    ``gate`` and ``up`` are (N, F, E), ``down`` is (N, E, F). Where the file fuses gate and up,
    both are views of the one tensor, so rows of an expert are contiguous but experts may not be.
    ``scales`` (N,) are what products with gate and up are multiplied by; those of down belong to
    the routing. Experts without a gate have ``up`` in its place, so that ``relu`` squares.
    ``limit`` and ``up_limit`` are those of an ``activation`` that has some.
    """

    gate: Tensor
    up: Tensor
    down: Tensor
    activation: Activation = "silu"
    biases: ExpertBiases | None = None
    scales: tuple[Array, Array] | None = None
    limit: float = 0.0
    up_limit: float = 0.0

    @property
    def mapped(self) -> "ExpertTensors":
        """What is said of them, as of ``StreamedExperts``."""
        return self

    def matrices(self, expert: int) -> tuple[Bytes, Bytes, Bytes]:
        """Gate, up and down of one expert: (rows, row_bytes) each."""
        return self.gate.data[expert], self.up.data[expert], self.down.data[expert]


@dataclass(frozen=True, slots=True)
class StreamedExperts:
    """One layer's routed experts that come into memory as they are asked for, and go again.

    ``mapped`` has their types and shapes; its data are not to be touched. ``addresses`` (N, 3)
    says where gate, up and down of each expert begin, rows without gaps: true while the expert is
    in memory, which ``moe_ffn`` is told by ``arrivals``. ``read`` makes views of such bytes.

    With ``slots``, a backend's own, experts are laid out there as they are read, and ``addresses``
    are slot numbers.
    """

    mapped: ExpertTensors
    addresses: NDArray[np.uint64]
    read: Callable[[int, int], Bytes]
    slots: Any = None

    def matrices(self, expert: int) -> tuple[Bytes, Bytes, Bytes]:
        """Gate, up and down of an expert that is in memory: (rows, row_bytes) each."""
        parts = self.mapped.gate, self.mapped.up, self.mapped.down
        gate, up, down = (
            self.read(int(address), part.data[0].size).reshape(part.data.shape[1:])
            for address, part in zip(self.addresses[expert], parts, strict=True)
        )
        return gate, up, down


class ExpertSlots(Protocol):
    """A backend's own memory for experts of one shape, which the reader's threads fill by slot."""

    slot_bytes: int
    num_slots: int
    free: list[int]

    @property
    def n_bytes(self) -> int:
        """Bytes of all slots."""

    def table(self) -> NDArray[np.int64]:
        """How and where gate, up and down are laid out, for ``native/io/reader.h``: (3, 10)."""

    def slot_address(self, slot: int) -> int:
        """What the reader is told: the slot's number."""

    def trim(self, slot: int) -> bool:
        """Hand a slot's memory back to the system, if that can be done."""


MakeSlots = Callable[[ExpertTensors, int], Any]
"""Makes ``ExpertSlots`` for so many experts."""
