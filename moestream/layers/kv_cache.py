"""Keys and values of the tokens seen so far.

Owns the buffers and how they grow; what is in them is written and read by the backend's
``attention``. Knows nothing of tokens: ``Session`` keeps those.
"""

from moestream.backends import Array, Backend, KVType
from moestream.errors import ContextLengthError

_FIRST_POSITIONS = 256


class KVCache:
    """One (keys, values) pair a layer, each (K, S, ...), grown by doubling up to ``capacity``.

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
        kv_types: tuple[KVType, KVType],
    ) -> None:
        self.length = 0
        self.capacity = capacity
        self._backend = backend
        self._shape = (num_heads, head_dim)
        self._kv_types = kv_types
        self._positions = min(capacity, _FIRST_POSITIONS)
        self._layers = [self._buffers() for _ in range(num_layers)]

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
            for index, pair in enumerate(self._layers):  # one by one: old and new need room
                self._layers[index] = self._grown(pair)

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} cached positions to {length}")
        self.length = length

    def _buffers(self) -> tuple[Array, Array]:
        heads, dim = self._shape
        keys, values = (
            self._backend.kv_buffer(heads, self._positions, dim, kv_type)
            for kv_type in self._kv_types
        )
        return keys, values

    def _grown(self, old: tuple[Array, Array]) -> tuple[Array, Array]:
        new = self._buffers()
        for into, rows in zip(new, old, strict=True):
            into[:, : self.length] = rows[:, : self.length]
        return new
