"""Keys and values of the tokens seen so far.

Owns the buffers and how they grow; what is in them is written and read by the backend's
``attention``. Knows nothing of tokens: ``Session`` keeps those.
"""

from typing import Literal

from moestream.backends import Array, Backend
from moestream.errors import ContextLengthError

KVType = Literal["f16", "f32"]

_FIRST_POSITIONS = 256


class KVCache:
    """One (keys, values) pair a layer, each (K, S, D), grown by doubling up to ``capacity``.

    A long context costs memory only when it is used.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        num_layers: int,
        num_heads: int,
        head_dim: int,
        capacity: int,
        kv_type: KVType,
    ) -> None:
        self.length = 0
        self.capacity = capacity
        self._backend = backend
        self._shape = (num_heads, head_dim)
        self._kv_type = kv_type
        self._positions = min(capacity, _FIRST_POSITIONS)
        self._layers = [(self._buffer(), self._buffer()) for _ in range(num_layers)]

    def layer(self, index: int) -> tuple[Array, Array]:
        """Keys and values of layer ``index``, with room for what ``reserve`` asked."""
        return self._layers[index]

    def reserve(self, tokens: int) -> None:
        """Make room for ``tokens`` more positions.

        Raises:
            ContextLengthError: they do not fit in ``capacity``.
        """
        needed = self.length + tokens
        if needed > self.capacity:
            raise ContextLengthError(
                f"{self.length} tokens in the context and {tokens} more make {needed}, but it "
                f"holds {self.capacity}; shorten the input or ask for a larger context"
            )
        if needed > self._positions:
            self._positions = min(self.capacity, max(needed, 2 * self._positions))
            self._layers = [
                (self._grown(keys), self._grown(values)) for keys, values in self._layers
            ]

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} cached positions to {length}")
        self.length = length

    def _buffer(self) -> Array:
        heads, dim = self._shape
        return self._backend.kv_buffer(heads, self._positions, dim, self._kv_type)

    def _grown(self, old: Array) -> Array:
        buffer = self._buffer()
        buffer[:, : self.length] = old[:, : self.length]
        return buffer
