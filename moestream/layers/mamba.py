"""State spaces with a decay for each number of the state (Mamba)."""

from dataclasses import dataclass

from moestream.backends import Array, Convolution, MambaRule
from moestream.layers.batch import Batch
from moestream.layers.cache import RecurrentShape, State
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import Weights


@dataclass(frozen=True, slots=True)
class MambaShape:
    """Sizes of a layer: ``inner`` channels, each with ``size`` numbers of state.

    What a token asks for is projected through ``rank`` numbers.
    """

    inner: int
    size: int
    rank: int
    conv_width: int

    def state(self) -> RecurrentShape:
        """The convolution's last inputs, and a row a channel."""
        return RecurrentShape(((self.conv_width - 1, self.inner), (self.inner, self.size)))


class Mamba:
    """Norm, projection, short convolution, recurrence, gate, projection: (T, E) -> (T, E).

    Source: arXiv 2312.00752, 2403.19887 (Jamba, which norms what writes, what reads and the
    steps); llama.cpp, src/models/mamba-base.cpp.
    """

    def __init__(
        self, weights: Weights, *, hidden_size: int, shape: MambaShape, eps: float
    ) -> None:
        self.backend = weights.backend
        self.shape = shape
        inner, size, rank = shape.inner, shape.size, shape.rank
        self.norm = RMSNorm(weights, "attn_norm.weight", hidden_size, eps)
        self.into = weights.matrices("ssm_in.weight", {"x": inner, "gate": inner}, hidden_size)
        kernel = weights.table("ssm_conv1d.weight", inner, shape.conv_width)
        bias = weights.vector("ssm_conv1d.bias", inner)
        self.convolution = Convolution(kernel, bias, silu=True)
        rows = {"steps": rank, "write": size, "read": size}
        self.asked = weights.matrices("ssm_x.weight", rows, inner)
        self.norms = [
            RMSNorm(weights, f"ssm_{name}_norm.weight", width, eps)
            for name, width in (("dt", rank), ("b", size), ("c", size))
        ]
        self.steps = weights.matrix("ssm_dt.weight", inner, rank)
        self.rule = MambaRule(
            rates=weights.table("ssm_a", inner, size),
            time_bias=weights.vector("ssm_dt.bias", inner),
            skips=weights.vector("ssm_d", inner),
        )
        self.out = weights.matrix("ssm_out.weight", hidden_size, inner)

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """Run each sequence's rows through its recurrence."""
        ops = self.backend
        x, gate = ops.linears(self.norm(x), self.into, [None] * 2)
        found = batch.each(layer, self._recur, x)  # (T, C)
        return ops.linear(ops.glu(gate, found, "silu"), self.out)

    def _recur(self, state: State, x: Array) -> Array:
        ops, (past, memory) = self.backend, state
        x = ops.causal_conv(x, past, self.convolution)
        asked = ops.linears(x, self.asked, [None] * 3)
        steps, b, c = (norm(part) for norm, part in zip(self.norms, asked, strict=True))
        return ops.mamba(x, ops.linear(steps, self.steps), b, c, memory, self.rule)
