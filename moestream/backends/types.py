"""What the operations of a backend take and give, besides arrays.

Shapes use the legend of ``moestream.layers``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moestream.backends.sparse_blocks import BlockKeys
from moestream.gguf import Tensor

Array: TypeAlias = Any
"""A backend's own array: ``numpy.ndarray`` here, ``mlx.core.array`` on Apple GPUs."""

Matrix: TypeAlias = Any
"""A backend's own form of a resident weight matrix, rows as in GGUF (one row an output)."""

Matrices: TypeAlias = Any
"""A backend's own form of one such matrix a head."""

Experts: TypeAlias = Any
"""A backend's own form of a layer's routed experts: what ``moe_ffn`` takes."""

Bytes = NDArray[np.uint8]

Arrivals = Iterable[Sequence[int]]
"""Expert ids in batches, as they come into memory."""

RopeStyle = Literal["interleaved", "half"]
"""Which coordinates turn together: ``2i, 2i+1`` (GGUF "norm") or ``i, i + D/2`` ("neox")."""


Activation = Literal["silu", "gelu", "swiglu_oai", "relu", "silu_clamped", "silu_capped"]
"""What the gate passes through before it scales ``up``: ``silu(g) * u``, ``gelu(g) * u`` (by tanh),
gpt-oss's ``g * sigmoid(1.702 g) * (u + 1)`` with g at most 7 and u within -7 to 7, ``max(g, 0) *
u``; or ``silu(g) * u`` with u within a limit and its negative, and at most that limit the gate
before it passes (``silu_clamped``) or what has passed (``silu_capped``)."""

ExpertBiases = tuple[Array, Array, Array]
"""Biases of gate, up and down: (N, F) twice, (N, E)."""

Gating = Literal["softmax", "sigmoid", "softmax_of_chosen"]
"""From router logits to weights: over all experts, each by itself, or over the chosen alone."""


@dataclass(frozen=True, slots=True)
class Routing:
    """How ``k`` experts are chosen from a router's logits, and weighed.

    ``normalise`` divides the k weights by their sum (``norm_topk_prob``); ``scale`` multiplies them
    afterwards. Of ``groups`` of neighbouring experts, the ``groups_used`` whose two best are best
    together take part (arXiv 2412.19437).
    """

    k: int
    normalise: bool
    gating: Gating = "softmax"
    scale: float = 1.0
    groups: int = 1
    groups_used: int = 1


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """How positions are attended to.

    Scores are multiplied by ``scale``; token t sees positions 0 to its own, or the last ``window``
    of them. ``sinks`` (H,) are scores of a position of no value, which takes its share of each
    head's softmax. Where there are no values, those of a position are the first ``value_dim`` of
    its keys. Scaled scores s become ``cap * tanh(s / cap)``, unless that is 0.
    """

    scale: float
    window: int = 0
    sinks: Array | None = None
    value_dim: int = 0
    cap: float = 0.0


@dataclass(frozen=True, slots=True)
class IndexQueries:
    """What chooses ``most`` of the positions that are attended to, by the ends of their keys.

    ``queries`` are (T, heads, D) and ``weights`` (T, heads). With ``blocks``, which have the keys
    that are asked, whole ones are chosen.
    """

    queries: Array
    weights: Array
    most: int
    blocks: BlockKeys | None = None

    @property
    def kept(self) -> int:
        """Numbers of a position that the choice goes by."""
        return self.blocks.kept if self.blocks else int(self.queries.shape[2])

    @property
    def enough(self) -> int:
        """So many positions are all seen."""
        return self.most + (self.blocks.size - 1 if self.blocks else 0)


Seen: TypeAlias = Any
"""A backend's own form of which positions were chosen for each row of a pass."""


class KVStore(Protocol):
    """Keys and values of one sequence, of all layers that attend."""

    def reserve(self, positions: int, written: int) -> None:
        """Make room for so many positions; those from ``written`` on are going to be written."""

    def fork(self, length: int) -> "KVStore":
        """Make another that holds the first positions too; what either writes is its own."""

    def truncate(self, length: int) -> None:
        """Let go of what lies beyond the first positions."""


class KVStores(Protocol):
    """Makes the stores of one model."""

    def new(self) -> KVStore:
        """Make an empty store."""

    @property
    def n_bytes(self) -> int:
        """Bytes of all stores that there are."""


KVPass: TypeAlias = Any
"""A backend's own form of a pass's sequences: what ``attention`` takes."""


@dataclass(frozen=True, slots=True)
class DeltaRule:
    """The parameters of a gated delta-net layer that do not depend on the token.

    ``rates`` (H,), negative, and ``time_bias`` (H,) turn what a token asks into a decay.
    ``key_heads`` (H,) says which key head each value head goes with; ``dim`` is the size of both.
    """

    rates: Array
    time_bias: Array
    key_heads: NDArray[np.int32]
    num_key_heads: int
    dim: int
    eps: float


@dataclass(frozen=True, slots=True)
class MambaRule:
    """The parameters of a Mamba layer that do not depend on the token.

    ``rates`` (C, size), negative, and ``time_bias`` (C,) turn what a token asks into a step and
    decays; ``skips`` (C,) are what passes the state by.
    """

    rates: Array
    time_bias: Array
    skips: Array


@dataclass(frozen=True, slots=True)
class Mamba2Rule:
    """The parameters of a Mamba-2 layer that do not depend on the token.

    ``rates`` (H,), negative, and ``time_bias`` (H,) turn what a token asks into a step and a decay;
    ``skips`` (H,) are what passes the state by. Of ``groups`` of neighbouring heads, each has what
    writes and what reads, of ``size`` numbers, in common; a head has ``dim``.
    """

    rates: Array
    time_bias: Array
    skips: Array
    groups: int
    dim: int
    size: int


@dataclass(slots=True)
class Work:
    """What a backend with a device of its own did, which costs beside the arithmetic.

    ``operations`` are calls that launch about one kernel each; ``copied_bytes`` went to arrays of
    the device or came from them, weights aside.
    """

    synchronisations: int = 0
    operations: int = 0
    copied_bytes: int = 0

    def __sub__(self, before: "Work") -> "Work":
        """What was done since."""
        return Work(
            self.synchronisations - before.synchronisations,
            self.operations - before.operations,
            self.copied_bytes - before.copied_bytes,
        )

    def __add__(self, more: "Work") -> "Work":
        """Both together."""
        return self - (Work() - more)


@dataclass(frozen=True, slots=True)
class ExpertTensors:
    """One layer's routed experts, left where they lie in the mapped file.

    ``gate`` and ``up`` are (N, F, E), ``down`` is (N, E, F). Where the file fuses gate and up,
    both are views of the one tensor, so rows of an expert are contiguous but experts may not be.
    ``scales`` (N,) are what products with gate and up are multiplied by; those of down belong to
    the routing. Experts without a gate have ``up`` in its place, so that ``relu`` squares.
    ``limit`` is that of an ``activation`` that has one.
    """

    gate: Tensor
    up: Tensor
    down: Tensor
    activation: Activation = "silu"
    biases: ExpertBiases | None = None
    scales: tuple[Array, Array] | None = None
    limit: float = 0.0

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

    @property
    def activation(self) -> Activation:
        """What the gates pass through."""
        return self.mapped.activation

    @property
    def limit(self) -> float:
        """That of ``activation``."""
        return self.mapped.limit

    @property
    def biases(self) -> ExpertBiases | None:
        """Resident, of all experts."""
        return self.mapped.biases

    @property
    def scales(self) -> tuple[Array, Array] | None:
        """Resident, of all experts."""
        return self.mapped.scales

    @property
    def gate(self) -> Tensor:
        """Type and shape of the gates."""
        return self.mapped.gate

    @property
    def up(self) -> Tensor:
        """Type and shape of the up projections."""
        return self.mapped.up

    @property
    def down(self) -> Tensor:
        """Type and shape of the down projections."""
        return self.mapped.down

    def matrices(self, expert: int) -> tuple[Bytes, Bytes, Bytes]:
        """Gate, up and down of an expert that is in memory: (rows, row_bytes) each."""
        gate, up, down = (
            self.read(int(address), part.data[0].size).reshape(part.data.shape[1:])
            for address, part in zip(
                self.addresses[expert], (self.gate, self.up, self.down), strict=True
            )
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
