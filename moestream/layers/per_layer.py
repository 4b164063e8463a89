"""Embeddings of each layer's own: a row of a table, and a projection of what enters the first.

Source: llama.cpp, src/models/gemma4.cpp.
"""

import math

import numpy as np
from numpy.typing import NDArray

from moestream.backends import Array, Backend
from moestream.errors import ModelFormatError
from moestream.layers.norm import RMSNorm
from moestream.layers.row_table import RowTable, Wanted
from moestream.layers.weights import PER_LAYER, Weights


class Given:
    """What each layer is given for a chunk's tokens: ``projected`` (T, L, D), and rows to come."""

    def __init__(self, backend: Backend, wanted: Wanted, projected: Array) -> None:
        self._backend, self._wanted, self._projected = backend, wanted, projected
        self._all: Array | None = None

    def of(self, layer: int) -> Array:
        """One layer's: (T, D). The first to ask waits for the rows."""
        if self._all is None:
            projected = self._projected
            rows = self._wanted.take().reshape(projected.shape) * math.sqrt(projected.shape[2])
            self._all = (projected + rows) * math.sqrt(0.5)
        return self._backend.copy(self._all[:, layer])


class PerLayer:
    """The table, and the projection of what enters the first layer."""

    def __init__(
        self,
        weights: Weights,
        *,
        vocab_size: int,
        hidden_size: int,
        size: int,
        layers: int,
        eps: float,
    ) -> None:
        """Each of so many ``layers`` is given ``size`` numbers.

        Raises:
            ModelFormatError: there is not a row for each token.
        """
        self.backend = weights.backend
        self.shape = layers, size
        self.table = RowTable(weights, PER_LAYER, layers * size)
        if self.table.num_rows < vocab_size:
            raise ModelFormatError(
                f"{weights.file.path}: {PER_LAYER} has {self.table.num_rows} rows, expected one "
                f"for each of {vocab_size} tokens"
            )
        name = "per_layer_model_proj.weight"
        self.proj = weights.matrix(name, layers * size, hidden_size)
        self.norm = RMSNorm(weights, "per_layer_proj_norm.weight", size, eps)
        self.scale = hidden_size**-0.5

    def begin(self, tokens: NDArray[np.int32]) -> Wanted:
        """Begin to read tokens' rows."""
        return self.table.begin(tokens.astype(np.int64), len(tokens))

    def give(self, wanted: Wanted, hidden: Array) -> Given:
        """What layers get, of rows and of what enters the first layer (T, E)."""
        projected = self.backend.linear(hidden, self.proj) * self.scale
        return Given(self.backend, wanted, self.norm(projected.reshape(-1, *self.shape)))


class PerLayerBranch:
    """What a layer adds of what it was given: gated by the stream, projected and normed."""

    def __init__(self, weights: Weights, *, hidden_size: int, size: int, eps: float) -> None:
        self.backend = weights.backend
        self.gate = weights.matrix("inp_gate.weight", size, hidden_size)
        self.proj = weights.matrix("proj.weight", hidden_size, size)
        self.norm = RMSNorm(weights, "post_norm.weight", hidden_size, eps)

    def __call__(self, x: Array, given: Array) -> Array:
        """(T, E) and (T, D) -> (T, E)."""
        ops = self.backend
        inner = ops.glu(ops.linear(x, self.gate), given, "gelu")
        return self.norm(ops.linear(inner, self.proj))
