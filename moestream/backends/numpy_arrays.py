"""What backends have in common whose arrays are NumPy's: what needs no kernel, and no waiting."""

from collections.abc import Sequence

import numpy as np

from moestream.backends.kv_blocks import BlockStores
from moestream.backends.kv_rows import KVShapes, KVTypes
from moestream.backends.maths import Floats, Maths
from moestream.backends.types import Gates, RouterGate
from moestream.quants import GGMLQuantizationType, tensor_bytes

__all__ = ["Floats", "NumpyArrays"]


class NumpyArrays(Maths):
    """Part of a ``Backend``; see there for shapes and meaning."""

    work = None
    expert_slots = None

    def resident_bytes(self, type: GGMLQuantizationType, shape: tuple[int, ...]) -> int:
        """As in the file."""
        return tensor_bytes(type, shape)

    def gates(self, gates: Sequence[RouterGate]) -> Gates | None:
        """Not here."""
        return None

    def kv_stores(self, shapes: KVShapes, kv_types: KVTypes, capacity: int) -> BlockStores:
        """Blocks of 256 positions, which sequences that begin alike share; they need no bound."""
        return BlockStores(shapes, kv_types)

    def zeros(self, shape: tuple[int, ...]) -> Floats:
        """Zeros."""
        return np.zeros(shape, np.float32)

    def copy(self, x: Floats) -> Floats:
        """The same values in memory of their own."""
        return x.copy()

    def split(self, x: Floats, size: int) -> tuple[Floats, Floats]:
        """Copies, as kernels want no gaps."""
        return x[..., :size].copy(), x[..., size:].copy()

    def join(self, a: Floats, b: Floats) -> Floats:
        """A copy."""
        return np.concatenate([a, b], axis=-1)

    def stack_rows(self, parts: Sequence[Floats]) -> Floats:
        """A copy, unless there is one part alone."""
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def multiply(self, a: Floats, b: Floats) -> Floats:
        """Element by element."""
        return a * b

    def sigmoid_scale(self, x: Floats, logits: Floats) -> Floats:
        """``x * sigmoid(logits)``."""
        return x * self.sigmoid(logits)

    def scale_rows(self, x: Floats, factors: Floats) -> Floats:
        """Broadcast."""
        return x * factors.reshape(-1, *[1] * (x.ndim - 1))

    def clip(self, x: Floats, limit: float) -> Floats:
        """Element by element."""
        return np.clip(x, np.float32(-limit), np.float32(limit))

    def signed_root(self, x: Floats, least: float) -> Floats:
        """Element by element."""
        root: Floats = np.sqrt(np.maximum(np.abs(x), np.float32(least)))
        return np.sign(x) * root

    def sinkhorn(self, logits: Floats, iterations: int, eps: float) -> Floats:
        """Sums of a few numbers each, in order."""
        shares: Floats = self.exponentials(logits - logits.max(axis=-1, keepdims=True))
        shares = shares / shares.sum(axis=-1, keepdims=True) + np.float32(eps)
        for axis in (-2, *(-1, -2) * (iterations - 1)):
            shares = shares / (shares.sum(axis=axis, keepdims=True) + np.float32(eps))
        return shares

    def begin(self, x: Floats) -> None:
        """Nothing is lazy here."""

    def to_numpy(self, x: Floats) -> Floats:
        """Nothing is lazy here."""
        return x
