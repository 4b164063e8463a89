"""Later layers' routers on an earlier layer's residual stream: what they will probably choose.

Owns which layers' gates go together in one call of the backend, and what is done where it has none.
"""

from collections.abc import Mapping

from moestream.backends import Array
from moestream.layers.moe import MoE
from moestream.streaming.prefetch import union


def router_copy_bytes(hidden_size: int, num_experts: int) -> int:
    """What the copy of a router takes that guesses are made with: 8.5 bits a number."""
    return hidden_size * num_experts * 17 // 16


class GatesAhead:
    """The gates of ``moes``, by layer."""

    def __init__(self, moes: Mapping[int, MoE]) -> None:
        self._moes = [moes[layer] for layer in sorted(moes)]
        self._places = {layer: place for place, layer in enumerate(sorted(moes))}
        gates = [moe.gate() for moe in self._moes]
        known = [gate for gate in gates if gate is not None]
        alike = len({(len(gate.norm), gate.routing.k) for gate in known}) == 1
        whole = len(known) == len(gates) and alike
        self._native = self._moes[0].backend.gates(known) if whole else None

    def __call__(self, layer: int, x: Array, ahead: int) -> list[list[int]]:
        """See ``Foretell``."""
        place = self._places[layer]
        if self._native is None:
            later = self._moes[place + 1 : place + 1 + ahead]
            return [union(moe.norm_and_route(x)[0]) for moe in later]
        return self._native.choose(place, x, ahead)

    def note(self, layer: int, x: Array) -> None:
        """Hear of the stream x (T, E) at a layer from which nothing is guessed now."""
        if self._native is not None:
            self._native.note(self._places[layer], x)
