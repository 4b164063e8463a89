"""State spaces with one decay a head (Mamba-2), over a state that does not grow."""

from dataclasses import dataclass

from moestream.backends import Array, Convolution, Mamba2Rule
from moestream.layers.batch import Batch
from moestream.layers.cache import RecurrentShape, State
from moestream.layers.norm import RMSNorm, UnweightedRMSNorm
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class Mamba2Shape:
    """Sizes of a layer: ``heads`` of ``dim`` numbers, and states of ``size`` for each of them."""

    heads: int
    dim: int
    size: int
    groups: int
    conv_width: int

    @property
    def inner(self) -> int:
        """Width of all heads."""
        return self.heads * self.dim

    @property
    def channels(self) -> int:
        """Width of what is convolved: inputs, what writes them, and what reads."""
        return self.inner + 2 * self.groups * self.size

    def state(self) -> RecurrentShape:
        """The convolution's last inputs, and a matrix a head."""
        past = (self.conv_width - 1, self.channels)
        return RecurrentShape((past, (self.heads, self.dim, self.size)))


class Mamba2:
    """Norm, projection, short convolution, recurrence, gate, norm, projection: (T, E) -> (T, E).

    The second norm is over each group of heads.

    Source: arXiv 2405.21060; llama.cpp, src/models/mamba-base.cpp.
    """

    def __init__(
        self, weights: Weights, *, hidden_size: int, shape: Mamba2Shape, eps: float
    ) -> None:
        self.backend = weights.backend
        self.shape = shape
        heads, groups = shape.heads, shape.groups
        self.norm = RMSNorm(weights, "attn_norm.weight", hidden_size, eps)
        rows = {"gate": shape.inner, "xbc": shape.channels, "steps": heads}
        self.projections = weights.matrices("ssm_in.weight", rows, hidden_size)
        kernel = weights.table("ssm_conv1d.weight", shape.channels, shape.conv_width)
        bias = weights.optional_vector("ssm_conv1d.bias", shape.channels)
        self.convolution = Convolution(kernel, bias, silu=True)
        self.rule = Mamba2Rule(
            rates=weights.table("ssm_a", heads, 1).reshape(-1),
            time_bias=weights.vector("ssm_dt.bias", heads),
            skips=weights.table("ssm_d", heads, 1).reshape(-1),
            groups=groups,
            dim=shape.dim,
            size=shape.size,
        )
        self.group_norm = UnweightedRMSNorm(self.backend, shape.inner // groups, eps)
        self.group_scale = weights.table("ssm_norm.weight", groups, shape.inner // groups)
        self.out = weights.matrix("ssm_out.weight", hidden_size, shape.inner)

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """Run each sequence's rows through its recurrence."""
        ops, shape = self.backend, self.shape
        gate, xbc, steps = ops.linears(self.norm(x), self.projections, [None] * 3)
        found = batch.each(layer, self._recur, xbc, steps)  # (T, H * D)
        gated = ops.glu(gate, found, "silu").reshape(-1, shape.groups, shape.inner // shape.groups)
        normed = ops.multiply(self.group_norm(gated), self.group_scale)
        return ops.linear(normed.reshape(-1, shape.inner), self.out)

    def _recur(self, state: State, xbc: Array, steps: Array) -> Array:
        past, memory = state
        xbc = self.backend.causal_conv(xbc, past, self.convolution)
        return self.backend.mamba2(xbc, steps, memory, self.rule)
