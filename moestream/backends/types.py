"""What the operations of a backend take and give, besides arrays and weights of experts.

Shapes use the legend of ``moestream.layers``.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moestream.backends.sparse_blocks import BestOfBlocks, BlockKeys

Array: TypeAlias = Any
"""A backend's own array: ``numpy.ndarray`` here, ``mlx.core.array`` on Apple GPUs."""

Matrix: TypeAlias = Any
"""A backend's own form of a resident weight matrix, rows as in GGUF (one row an output)."""

Matrices: TypeAlias = Any
"""A backend's own form of one such matrix a head."""

Experts: TypeAlias = Any
"""A backend's own form of a layer's routed experts: what ``moe_ffn`` takes."""

RopeStyle = Literal["interleaved", "half"]
"""Which coordinates turn together: ``2i, 2i+1`` (GGUF "norm") or ``i, i + D/2`` ("neox")."""


Activation = Literal["silu", "gelu", "swiglu_oai", "relu", "silu_clamped", "silu_capped", "situ"]
"""What the gate passes through before it scales ``up``: ``silu(g) * u``, ``gelu(g) * u`` (by tanh),
gpt-oss's ``g * sigmoid(1.702 g) * (u + 1)`` with g at most 7 and u within -7 to 7, ``max(g, 0) *
u``; or ``silu(g) * u`` with u within a limit and its negative, and at most that limit the gate
before it passes (``silu_clamped``) or what has passed (``silu_capped``). ``situ`` is ``l * tanh(g /
l) * sigmoid(g) * m * tanh(u / m)`` of a limit l and one of up, m, without which u is as it is."""

Gating = Literal["softmax", "sigmoid", "softmax_of_chosen", "sqrt_softplus"]
"""From router logits to weights: over all experts, each by itself, or over the chosen alone; or the
root of ``log(1 + e^x)``, each by itself."""


@dataclass(frozen=True, slots=True)
class Routing:
    """How ``k`` experts are chosen from a router's logits, and weighed.

    ``normalise`` divides the k weights by their sum (``norm_topk_prob``); ``scale`` multiplies them
    afterwards. Of ``groups`` of neighbouring experts, the ``groups_used`` whose two best are best
    together take part (arXiv 2412.19437).

    Of a layer: ``selection_bias`` (N,) is added to scores for the choice, and has no part in the
    weights; ``expert_scales`` (N,), of the experts' outputs, have no part in the choice.
    """

    k: int
    normalise: bool
    gating: Gating = "softmax"
    scale: float = 1.0
    groups: int = 1
    groups_used: int = 1
    selection_bias: NDArray[np.float32] | None = None
    expert_scales: NDArray[np.float32] | None = None


Routed: TypeAlias = tuple[NDArray[np.int32], Array]
"""Ids of the chosen experts and their weights: (T, k) each."""

QKV: TypeAlias = tuple[Array, Array, Array | None]
"""Queries (T, H, D), keys (T, K, D) and values (T, K, Dv), of which there may be none."""


@dataclass(frozen=True, slots=True)
class RouterGate:
    """A layer's router and its norm (E,): ``rms_norm(x, norm, eps) @ router.T + bias``."""

    norm: Array
    eps: float
    router: Matrix
    bias: Array | None
    routing: Routing


class Gates(Protocol):
    """Several layers' routers, asked in one call of an earlier layer's stream.

    x is moved by what the means of the last tokens differ by, from one layer to the other.
    """

    def note(self, place: int, x: Array) -> None:
        """X (T, E) is the stream at the layer at a place."""

    def choose(self, place: int, x: Array, ahead: int) -> list[list[int]]:
        """What each of the next layers would choose, each expert once; and note x.

        All rows' first choices come first.
        """


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
    that are asked, whole ones are chosen. ``by_head``: each head chooses them for one of the
    key/value heads, and weights are of no account.
    """

    queries: Array
    weights: Array
    most: int
    blocks: BlockKeys | None = None
    by_head: BestOfBlocks | None = None

    @property
    def kept(self) -> int:
        """Numbers of a position that the choice goes by."""
        return self.blocks.kept if self.blocks else int(self.queries.shape[2])

    @property
    def choices(self) -> int:
        """How many are made for a row."""
        return int(self.queries.shape[1]) if self.by_head else 1

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
