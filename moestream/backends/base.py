"""The arithmetic that a model asks for: what every backend must implement.

Owns the operations' names, shapes and meaning. ``backends/reference.py`` is their executable
specification; the others must agree with it. Knows nothing of layers, models or files: weights
come in as mapped GGUF tensors, and what a backend makes of them is its own affair.

Shapes use the legend of ``moestream.layers``.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moestream.backends.kv_rows import KVShapes, KVTypes
from moestream.backends.types import (
    Activation,
    Array,
    Arrivals,
    AttentionRule,
    DeltaRule,
    Experts,
    ExpertTensors,
    IndexQueries,
    KVPass,
    KVStore,
    KVStores,
    MakeSlots,
    Mamba2Rule,
    MambaRule,
    Matrices,
    Matrix,
    RopeStyle,
    Routing,
    Seen,
    StreamedExperts,
    Work,
)
from moestream.gguf import Tensor
from moestream.quants import GGMLQuantizationType


class Backend(Protocol):
    """The operations over float32 activations and GGUF weights."""

    name: str
    scratch_bytes: int
    """What a chunk's activations take beside what any run has room for: see ``plan_memory``."""

    @property
    def work(self) -> Work | None:
        """What it did so far; None for a backend on the CPU, which has nothing to wait for."""

    @property
    def expert_slots(self) -> MakeSlots | None:
        """Makes slots for streamed experts; None where blocks are multiplied as they are read."""

    def resident_bytes(self, type: GGMLQuantizationType, shape: tuple[int, ...]) -> int:
        """Memory that a weight of a type and shape takes once it is loaded."""

    def matrix(self, tensor: Tensor) -> Matrix:
        """Make a dense weight matrix resident, in the form that ``linear`` and ``embed`` read."""

    def head_matrices(self, tensors: list[Tensor]) -> Matrices:
        """Make one matrix a head resident, for ``heads_linear``: all of one shape and type."""

    def embedding(self, tensor: Tensor) -> Matrix:
        """A matrix for ``embed`` alone, which reads a row a token: it may stay in the file."""

    def vector(self, tensor: Tensor) -> Array:
        """Load a norm weight, bias or other small tensor as float32."""

    def experts(self, tensors: ExpertTensors | StreamedExperts) -> Experts:
        """Make a layer's experts ready for ``moe_ffn``; their blocks stay where they lie."""

    def embed(self, table: Matrix, tokens: NDArray[np.int32]) -> Array:
        """Rows of the embedding table: (T,) -> (T, E)."""

    def linear(self, x: Array, weight: Matrix, bias: Array | None = None) -> Array:
        """``x @ weight.T + bias``: (T, columns) -> (T, rows)."""

    def linears(self, x: Array, weights: list[Matrix], biases: list[Array | None]) -> list[Array]:
        """``linear`` of one input with each of several weights."""

    def heads_linear(self, x: Array, weights: Matrices) -> Array:
        """``linear`` of each head with its own weight: (T, H, columns) -> (T, H, rows)."""

    def copy(self, x: Array) -> Array:
        """The same values in memory of their own."""

    def split(self, x: Array, size: int) -> tuple[Array, Array]:
        """The first ``size`` of the last axis, and the rest."""

    def join(self, a: Array, b: Array) -> Array:
        """``a``, then ``b``, along the last axis."""

    def stack_rows(self, parts: Sequence[Array]) -> Array:
        """Rows of the parts, one behind the other: (T, ...)."""

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """Scale to unit root mean square over the last axis, then by ``weight``."""

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

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """A buffer of float32 zeros for a recurrent state."""

    def attention(
        self,
        q: Array,
        k: Array,
        v: Array | None,
        kv_pass: KVPass,
        layer: int,
        rule: AttentionRule,
        seen: Seen | None = None,
    ) -> Array:
        """Write k, v (T, K, D) into the sequences' stores, then attend causally within each.

        ``seen``, where given, are the only positions that rows attend to.

        What is attended to is what the stores hold, rounded to their types, which may differ.
        q is (T, H, D). Values may have another length than keys; ``v`` is None where there are
        none. Returns (T, H * value length).
        """

    def choose(self, index: IndexQueries, k: Array, kv_pass: KVPass, layer: int) -> Seen | None:
        """Write k (T, 1, D), and choose positions by the last numbers of all keys; None is all.

        Source: DeepSeek-V3.2-Exp (DeepSeek-AI, 2025); see ``sparse``.
        """

    def causal_conv(
        self,
        x: Array,
        kernel: Array,
        past: Array,
        *,
        silu: bool = False,
        bias: Array | None = None,
    ) -> Array:
        """Weigh each channel's last w values: (T, C) -> (T, C), the newest by the last weight.

        ``bias`` (C,) is added; with ``silu``, the sum y becomes ``y * sigmoid(y)``.
        ``kernel`` is (C, w). ``past`` (w - 1, C) holds the values before the chunk, the oldest
        first, and is brought up to its end.
        """

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

    def add(self, a: Array, b: Array) -> Array:
        """``a + b``, of one shape."""

    def multiply(self, a: Array, b: Array) -> Array:
        """``a * b``, of one shape."""

    def glu(self, gate: Array, up: Array, activation: Activation, limit: float = 0.0) -> Array:
        """``up`` scaled by the activated gate, of one shape; ``limit`` as in ``Activation``."""

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

    def softplus(self, x: Array) -> Array:
        """``log(1 + e^x)``."""

    def sigmoid_scale(self, x: Array, logits: Array) -> Array:
        """``x * sigmoid(logits)``: two shapes that go together."""

    def route(
        self,
        logits: Array,
        routing: Routing,
        selection_bias: NDArray[np.float32] | None = None,
        expert_scales: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.int32], Array]:
        """The k experts with the largest scores: ids (T, k) and weights (T, k).

        Scores are the gated logits, plus ``selection_bias`` (N,), which has no part in the weights;
        ``expert_scales`` (N,), of the experts' outputs, have no part in the choice.
        Ids are in order of falling score, the lower id first among equals.
        """

    def moe_ffn(
        self,
        x: Array,
        experts: Experts,
        ids: NDArray[np.int32],
        weights: Array,
        arrivals: Arrivals | None = None,
    ) -> Array:
        """Weighted sum of the chosen experts' networks: (T, E) -> (T, E).

        ``arrivals`` gives the chosen experts in batches, each of them once; those of a batch are
        in memory until the next is asked for. Without it, all are.

        Each (token, slot) has its own output; they are summed in slot order, so the order in
        which experts are computed cannot change a bit.
        """

    def begin(self, x: Array) -> None:
        """Start computing ``x``, if that was put off, to be done when next something is waited for.

        Worth a call before reads are waited for, or where two waits can be one.
        """

    def to_numpy(self, x: Array) -> NDArray[np.float32]:
        """The array's values, computed if they were not yet."""
