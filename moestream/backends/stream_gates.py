"""Several residual streams whose mean a branch reads, each number by a gate of low rank.

The formula, for all backends that have no kernel.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from moestream.backends.types import Array, Matrix

if TYPE_CHECKING:
    from moestream.backends.base import Backend


@dataclass(frozen=True, slots=True)
class StreamGates:
    """What gates are made of: streams normed by ``norm`` (S, E), then ``down`` and ``up``.

    ``inject`` says what a branch's result is scaled by for each stream, None if nothing is written.
    """

    norm: Array
    ones: Array
    eps: float
    down: Matrix
    up: Matrix
    inject: Matrix | None


class Streaming(Protocol):
    """What layers need around which there are several residual streams."""

    def read_streams(self, streams: Array, gates: StreamGates) -> tuple[Array, Array | None]:
        """The mean of the normed streams by their gates, and a scale of 0 to 2 for each of them.

        (T, S, E) -> (T, E), (T, S), or None in place of scales where nothing is written.
        """

    def write_streams(self, streams: Array, added: Array, scales: Array) -> Array:
        """The streams with a branch's result: (T, S, E), (T, E), (T, S) -> (T, S, E)."""


class GatedStreams:
    """Part of a ``Backend`` without a kernel; see ``Streaming``."""

    def read_streams(self, streams: Array, gates: StreamGates) -> tuple[Array, Array | None]:
        """Step by step."""
        ops, count = cast("Backend", self), streams.shape[1]
        normed = ops.rms_norm(streams, gates.ones, gates.eps) * gates.norm
        flat = normed.reshape(len(streams), -1)
        narrow = ops.linear(flat, gates.down) * (1 / count)
        logits = ops.linear(ops.sigmoid_scale(narrow, narrow), gates.up)
        gated = ops.sigmoid_scale(flat, logits).reshape(streams.shape)
        total = gated[:, 0]
        for i in range(1, count):
            total = total + gated[:, i]
        scales = None
        if gates.inject is not None:
            asked = ops.linear(flat, gates.inject) * (1 / count)
            scales = ops.sigmoid_scale(ops.zeros((count,)) + 2, asked)
        return total * (1 / count), scales

    def write_streams(self, streams: Array, added: Array, scales: Array) -> Array:
        """Broadcast."""
        return streams + added[:, None] * scales[..., None]
