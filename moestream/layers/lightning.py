"""Lightning attention: linear attention with one fixed decay a head.

Its recurrence is Mamba-2's, with values for inputs, keys for what writes and queries for what
reads, and steps that are all of length one.

Source: arXiv 2501.08313; llama.cpp, src/models/minimax-01.cpp.
"""

import math
from dataclasses import dataclass

import numpy as np

from moestream.backends import Array, Mamba2Rule
from moestream.gguf import Tensor
from moestream.layers.batch import Batch
from moestream.layers.cache import RecurrentShape, State
from moestream.layers.norm import RMSNorm
from moestream.layers.weights import Weights
from moestream.quants import GGMLQuantizationType

_STEP = math.log(math.e - 1)
"""Whose softplus is one."""


@dataclass(frozen=True, slots=True)
class LightningShape:
    """Heads of ``dim`` numbers."""

    heads: int
    dim: int

    def state(self) -> RecurrentShape:
        """A matrix a head."""
        return RecurrentShape(((self.heads, self.dim, self.dim),))

    def slopes(self) -> list[float]:
        """What each head's past decays by, as logarithms: a geometric series."""
        start = 2 ** -(2 ** -(math.log2(self.heads) - 3))
        return [start ** (head + 1) for head in range(self.heads)]


class LightningAttention:
    """Norm, projections, recurrence, norm, gate, projection: (T, E) -> (T, E)."""

    def __init__(
        self,
        weights: Weights,
        *,
        hidden_size: int,
        shape: LightningShape,
        slope_scale: float,
        eps: float,
    ) -> None:
        ops = self.backend = weights.backend
        self.shape = shape
        heads, dim = shape.heads, shape.dim
        inner = heads * dim
        self.norm = RMSNorm(weights, "attn_norm.weight", hidden_size, eps)
        rows = np.arange(3 * inner).reshape(heads, 3, dim)
        self.vkq = [
            weights.matrix_rows("attn_qkv.weight", 3 * inner, hidden_size, rows[:, part].ravel())
            for part in (2, 1, 0)
        ]
        self.gate = weights.matrix("attn_gate.weight", inner, hidden_size)
        self.inner_norm = RMSNorm(weights, "attn_norm_2.weight", inner, eps)
        self.out = weights.matrix("attn_output.weight", hidden_size, inner)
        slopes = [-slope_scale * slope for slope in shape.slopes()]
        self.rule = Mamba2Rule(
            rates=ops.vector(_tensor(slopes)),
            time_bias=ops.vector(_tensor([_STEP] * heads)),
            skips=ops.zeros((heads,)),
            groups=heads,
            dim=dim,
            size=dim,
        )

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """Run each sequence's rows through its recurrence."""
        ops = self.backend
        x = self.norm(x)
        parts = ops.linears(x, [*self.vkq, self.gate], [None] * 4)
        v, k, q = (ops.sigmoid_scale(part, part) for part in parts[:3])
        found = batch.each(layer, self._recur, ops.join(ops.join(v, k), q))  # (T, H * D)
        return ops.linear(ops.sigmoid_scale(self.inner_norm(found), parts[3]), self.out)

    def _recur(self, state: State, vkq: Array) -> Array:
        steps = self.backend.zeros((len(vkq), self.shape.heads))
        (memory,) = state
        return self.backend.mamba2(vkq, steps, memory, self.rule)


def _tensor(values: list[float]) -> Tensor:
    data = np.array(values, np.float32)
    return Tensor("", GGMLQuantizationType.F32, data.shape, data.view(np.uint8))
