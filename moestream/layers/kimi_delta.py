"""Linear attention by the delta rule, with a decay of its own for each coordinate of the keys."""

from collections.abc import Callable
from dataclasses import dataclass

from moestream.backends import Array, Backend, Convolution, Matrix
from moestream.layers.batch import Batch
from moestream.layers.cache import RecurrentShape, State
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class KimiDeltaShape:
    """Sizes of a layer: heads of ``dim`` coordinates, and the convolution's width.

    ``bound`` is what logarithms of decays stay above, 0 for no bound; with ``falling``, the rates
    of such decays are negative in the file, as those without a bound are. ``unit_eps`` is added
    where queries and keys are brought to unit length, by default what norms add.
    """

    heads: int
    dim: int
    conv_width: int
    bound: float = 0.0
    falling: bool = False
    unit_eps: float | None = None

    @property
    def inner(self) -> int:
        """Width of all queries, of all keys, and of all values."""
        return self.heads * self.dim

    def state(self) -> RecurrentShape:
        """The convolution's last inputs, and a matrix a head."""
        past = (self.conv_width - 1, 3 * self.inner)
        return RecurrentShape((past, (self.heads, self.dim, self.dim)))


class KimiDelta:
    """Norm, projections, short convolution, delta rule, norm, gate, projection: (T, E) -> (T, E).

    Source: Kimi Linear, arXiv 2510.26692; llama.cpp, src/models/kimi-linear.cpp.
    """

    def __init__(
        self, weights: Weights, *, hidden_size: int, shape: KimiDeltaShape, eps: float
    ) -> None:
        self.backend = weights.backend
        self.shape = shape
        self.eps = eps if shape.unit_eps is None else shape.unit_eps
        inner = shape.inner
        self.norm = RMSNorm(weights, "attn_norm.weight", hidden_size, eps)
        rows = {f"attn_{part}.weight": inner for part in "qkv"}
        self.qkv = weights.matrices("attn_qkv.weight", rows, hidden_size)
        kernels = [
            weights.table(f"ssm_conv1d_{part}.weight", inner, shape.conv_width) for part in "qkv"
        ]
        self.convolution = Convolution(self.backend.stack_rows(kernels), silu=True)
        self.write = weights.matrix("ssm_beta.weight", shape.heads, hidden_size)
        self.forget = _narrow(weights, "ssm_f", hidden_size, shape)
        self.gate = _narrow(weights, "ssm_g", hidden_size, shape)
        self.decay = _decay(weights, shape)
        self.head_norm = RMSNorm(weights, "ssm_norm.weight", shape.dim, eps)
        self.out = weights.matrix("attn_output.weight", hidden_size, inner)

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """Run each sequence's rows through its recurrence."""
        ops = self.backend
        x = self.norm(x)
        q, k, v, write = ops.linears(x, [*self.qkv, self.write], [None] * 4)
        qkv = ops.join(ops.join(q, k), v)  # (T, 3 * H * D)
        decay = self.decay(_through(ops, x, self.forget))
        found = batch.each(layer, self._recur, qkv, write, decay)  # (T, H * D)
        heads = found.reshape(-1, self.shape.heads, self.shape.dim)
        normed = self.head_norm(heads).reshape(-1, self.shape.inner)
        return ops.linear(ops.sigmoid_scale(normed, _through(ops, x, self.gate)), self.out)

    def _recur(self, state: State, qkv: Array, write: Array, decay: Array) -> Array:
        past, memory = state
        qkv = self.backend.causal_conv(qkv, past, self.convolution)
        return self.backend.kimi_delta(qkv, write, decay, memory, self.eps)


def _narrow(weights: Weights, name: str, hidden_size: int, shape: KimiDeltaShape) -> list[Matrix]:
    """A projection, which files may have as two with a narrow waist."""
    if not weights.has(f"{name}_b.weight"):
        whole = f"{name}.weight" if weights.has(f"{name}.weight") else f"{name}_a.weight"
        return [weights.matrix(whole, shape.inner, hidden_size)]
    return [
        weights.matrix(f"{name}_a.weight", shape.dim, hidden_size),
        weights.matrix(f"{name}_b.weight", shape.inner, shape.dim),
    ]


def _through(ops: Backend, x: Array, matrices: list[Matrix]) -> Array:
    for matrix in matrices:
        x = ops.linear(x, matrix)
    return x


def _decay(weights: Weights, shape: KimiDeltaShape) -> Callable[[Array], Array]:
    """From what is asked (T, H * D) to logarithms of decays, of the same shape."""
    ops = weights.backend
    bias = weights.vector("ssm_dt.bias", shape.inner)
    rates = weights.column("ssm_a", shape.heads)  # (H, 1)

    def decay(asked: Array) -> Array:
        asked = (asked + bias).reshape(-1, shape.heads, shape.dim)
        if shape.bound:
            asked = -asked if shape.falling else asked
            logs = ops.sigmoid_scale(shape.bound, ops.multiply(asked, rates))
        else:
            logs = ops.multiply(ops.softplus(asked), rates)
        return logs.reshape(-1, shape.inner)

    return decay
