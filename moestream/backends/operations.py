"""The operations of a ``Backend`` by kind of layer: names, shapes and meaning.

Shapes use the legend of ``moestream.layers``.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moestream.backends.compressed import Stretches
from moestream.backends.expert_tensors import Arrivals, ExpertTensors, MakeSlots, StreamedExperts
from moestream.backends.kv_rows import KVShapes, KVTypes
from moestream.backends.recurrent_rules import Convolution, DeltaRule, Mamba2Rule, MambaRule
from moestream.backends.types import (
    QKV,
    Activation,
    Array,
    AttentionRule,
    Experts,
    Gates,
    IndexQueries,
    KVPass,
    KVStore,
    KVStores,
    RopeStyle,
    Routed,
    RouterGate,
    Routing,
    Seen,
)


class Elementwise(Protocol):
    """What is done number by number, and how arrays are put together."""

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """A buffer of float32 zeros for a recurrent state."""

    def copy(self, x: Array) -> Array:
        """The same values in memory of their own."""

    def split(self, x: Array, size: int) -> tuple[Array, Array]:
        """The first ``size`` of the last axis, and the rest."""

    def join(self, a: Array, b: Array) -> Array:
        """``a``, then ``b``, along the last axis."""

    def stack_rows(self, parts: Sequence[Array]) -> Array:
        """Rows of the parts, one behind the other: (T, ...)."""

    def add(self, a: Array, b: Array) -> Array:
        """``a + b``, of one shape."""

    def multiply(self, a: Array, b: Array) -> Array:
        """``a * b``, of one shape."""

    def glu(
        self,
        gate: Array,
        up: Array,
        activation: Activation,
        limit: float = 0.0,
        up_limit: float = 0.0,
    ) -> Array:
        """``up`` scaled by the activated gate, of one shape; limits as in ``Activation``."""

    def scale_rows(self, x: Array, factors: NDArray[np.float32]) -> Array:
        """Each row times its own factor: (T, ...) by (T,)."""

    def clip(self, x: Array, limit: float) -> Array:
        """``x``, within ``limit`` and its negative."""

    def signed_root(self, x: Array, least: float) -> Array:
        """``sign(x) * sqrt(max(|x|, least))``."""

    def sinkhorn(self, logits: Array, iterations: int, eps: float) -> Array:
        """Shares of which rows and columns sum to about one: (T, S, S).

        The softmax of rows plus ``eps``, divided by the sums of columns plus that, then of rows and
        of columns so often that columns had ``iterations`` turns.

        Source: arXiv 2512.24880.
        """

    def softmax(self, x: Array) -> Array:
        """Exponentials of the last axis, divided by their sum."""

    def softplus(self, x: Array) -> Array:
        """``log(1 + e^x)``."""

    def soften(self, x: Array, limit: float) -> Array:
        """``limit * tanh(x / limit)``."""

    def sigmoid_scale(self, x: Array, logits: Array) -> Array:
        """``x * sigmoid(logits)``: two shapes that go together."""


class Attending(Protocol):
    """What layers need that attend to all positions, and keep them."""

    def rope(self, x: Array, cos: Array, sin: Array, style: RopeStyle) -> Array:
        """Turn the first ``2 * cos.shape[1]`` coordinates of each head: (T, H, D), (T, D/2)."""

    def kv_stores(self, shapes: KVShapes, kv_types: KVTypes, capacity: int) -> KVStores:
        """What keeps keys and values of ``capacity`` positions at most, by layer.

        Raises:
            UnsupportedModelError: rows of that length cannot be stored as these types.
        """

    def kv_pass(self, parts: Sequence[tuple[KVStore, int, int]]) -> KVPass:
        """The sequences of a pass: each one's store, the position of its first row, its rows.

        The rows of all are one behind the other in what ``attention`` is given. A store has room
        for them.
        """

    def attention(
        self, qkv: QKV, kv_pass: KVPass, layer: int, rule: AttentionRule, seen: Seen | None = None
    ) -> Array:
        """Write keys and values into the sequences' stores, then attend causally within each.

        ``seen``, where given, are the only positions that rows attend to.

        What is attended to is what the stores hold, rounded to their types, which may differ.
        Values may have another length than keys. Returns (T, H * value length).
        """

    def choose(self, index: IndexQueries, k: Array, kv_pass: KVPass, layer: int) -> Seen | None:
        """Write k (T, 1, D), and choose positions by the last numbers of all keys; None is all.

        Source: DeepSeek-V3.2-Exp (DeepSeek-AI, 2025); see ``sparse``.
        """

    def compressed_attention(
        self,
        q: Array,
        rows: Array,
        kv_pass: KVPass,
        layer: int,
        rule: AttentionRule,
        stretches: Stretches,
        index: IndexQueries | None,
    ) -> Array:
        """Write rows (T, 1, D), then attend to a window and to stretches: (T, H * value_dim).

        With an ``index``, to those that it chooses by the last numbers of their rows. See
        ``compressed``.
        """


class Recurring(Protocol):
    """What layers need whose memory does not grow."""

    def causal_conv(self, x: Array, past: Array, rule: Convolution) -> Array:
        """Weigh each channel's last w values: (T, C) -> (T, C).

        ``past`` (w - 1, C) holds the values before the chunk, the oldest first, and is brought up
        to its end.
        """

    def pool_stretches(
        self,
        values: Array,
        scores: Array,
        past: Sequence[Array],
        places: NDArray[np.float32],
        start: int,
        rule: Stretches,
    ) -> Array:
        """Rows of the stretches that end in a chunk: see ``compressed.pool``."""

    def delta_net(
        self, qkv: Array, write: Array, forget: Array, state: Array, rule: DeltaRule
    ) -> Array:
        """The gated delta rule, token by token: (T, H * D).

        ``qkv`` (T, (2 * key heads + H) * D) are queries, keys and values; the first two are brought
        to unit length. ``write`` and ``forget`` (T, H) are the logits of how much of a value is
        written and how much of the past is kept. ``state`` (H, D, D), a row a coordinate of the
        values, is brought up to the chunk's end.

        Source: arXiv 2412.06464.
        """

    def kimi_delta(self, qkv: Array, write: Array, decay: Array, state: Array, eps: float) -> Array:
        """``delta_net`` with as many keys as values, which decay by coordinate: (T, H * D).

        ``qkv`` is (T, 3 * H * D), and ``decay`` (T, H * D) are logarithms of what is kept, by
        coordinate of the keys.

        Source: arXiv 2510.26692.
        """

    def mamba(
        self, x: Array, steps: Array, b: Array, c: Array, state: Array, rule: MambaRule
    ) -> Array:
        """Mamba's recurrence, token by token: (T, C).

        ``x`` (T, C) are inputs, ``steps`` (T, C) the logits of how long a step is, ``b`` and ``c``
        (T, size) what writes and what reads. ``state`` (C, size) is brought up to the chunk's end.

        Source: arXiv 2312.00752.
        """

    def mamba2(self, xbc: Array, steps: Array, state: Array, rule: Mamba2Rule) -> Array:
        """Mamba-2's recurrence, token by token: (T, H * dim).

        ``xbc`` (T, H * dim + 2 * groups * size) are inputs, what writes them, and what reads;
        ``steps`` (T, H) the logits of how long a step is. ``state`` (H, dim, size) is brought up to
        the chunk's end.

        Source: arXiv 2405.21060.
        """


class Mixing(Protocol):
    """What layers of experts need."""

    @property
    def expert_slots(self) -> MakeSlots | None:
        """Makes slots for streamed experts; None where blocks are multiplied as they are read."""

    def experts(self, tensors: ExpertTensors | StreamedExperts) -> Experts:
        """Make a layer's experts ready for ``moe_ffn``; their blocks stay where they lie."""

    def route(self, logits: Array, routing: Routing) -> Routed:
        """The k experts with the largest scores, which are the gated logits: see ``Routing``.

        Ids are in order of falling score, the lower id first among equals.
        """

    def weigh(self, logits: Array, ids: NDArray[np.int32], routing: Routing) -> Routed:
        """The weights that ``route`` would give experts (T, k) that something else chose."""

    def gates(self, gates: Sequence[RouterGate]) -> Gates | None:
        """One call for several layers' routers; None where each is to be asked on its own.

        All gates are of one width, and choose as many experts.
        """

    def moe_ffn(
        self, x: Array, experts: Experts, routed: Routed, arrivals: Arrivals | None = None
    ) -> Array:
        """Weighted sum of the chosen experts' networks: (T, E) -> (T, E).

        ``arrivals`` gives the chosen experts in batches, each of them once; those of a batch are
        in memory until the next is asked for. Without it, all are.

        Each (token, slot) has its own output; they are summed in slot order, so the order in
        which experts are computed cannot change a bit.
        """
