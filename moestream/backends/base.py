"""The arithmetic that a model asks for: what every backend must implement.

Owns the operations' names, shapes and meaning. ``backends/reference.py`` is their executable
specification; the others must agree with it. Knows nothing of layers, models or files: weights
come in as mapped GGUF tensors, and what a backend makes of them is its own affair.

Shapes use the legend of ``moestream.layers``.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moestream.backends.operations import Attending, Elementwise, Mixing, Recurring
from moestream.backends.stream_gates import Streaming
from moestream.backends.types import Array, Matrices, Matrix, Work
from moestream.gguf import Tensor
from moestream.quants import GGMLQuantizationType


class Backend(Elementwise, Attending, Recurring, Mixing, Streaming, Protocol):
    """The operations over float32 activations and GGUF weights; most are in ``operations``."""

    name: str
    keeps_bits: bool
    """Whether a row's numbers are the same to the bit, whichever rows are computed beside it."""
    scratch_bytes: int
    """What a chunk's activations take beside what any run has room for: see ``plan_memory``."""

    @property
    def work(self) -> Work | None:
        """What it did so far; None for a backend on the CPU, which has nothing to wait for."""

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

    def embed(self, table: Matrix, tokens: NDArray[np.int32]) -> Array:
        """Rows of the embedding table: (T,) -> (T, E)."""

    def linear(self, x: Array, weight: Matrix, bias: Array | None = None) -> Array:
        """``x @ weight.T + bias``: (T, columns) -> (T, rows)."""

    def linears(self, x: Array, weights: list[Matrix], biases: list[Array | None]) -> list[Array]:
        """``linear`` of one input with each of several weights."""

    def heads_linear(self, x: Array, weights: Matrices) -> Array:
        """``linear`` of each head with its own weight: (T, H, columns) -> (T, H, rows)."""

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """Scale to unit root mean square over the last axis, then by ``weight``."""

    def begin(self, x: Array) -> None:
        """Start computing ``x``, if that was put off, to be done when next something is waited for.

        Worth a call before reads are waited for, or where two waits can be one.
        """

    def to_numpy(self, x: Array) -> NDArray[np.float32]:
        """The array's values, computed if they were not yet."""
