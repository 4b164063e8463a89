"""Uses of experts as a rank counts them for a profile: those of whole passes alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.engine.engine import Engine
from moestream.errors import ProfileError
from moestream.layers.batch import Batch
from moestream.layers.moe import RoutingEvent
from moestream.profiles import UseCounter


class Heard:
    """Keeps the layers of a chunk and what they route to, as it may yet be broken off."""

    def __init__(self) -> None:
        self.events: list[tuple[int, NDArray[np.int32]]] = []

    def __call__(self, event: RoutingEvent) -> None:
        """A layer has routed."""
        self.events.append((event.layer, event.expert_ids))


class Counted:
    """What the experts of an engine's part were used for."""

    def __init__(self, layers: Sequence[int], num_experts: int, half_life: float) -> None:
        self._layers = list(layers)
        self._counter = UseCounter(layers, num_experts, half_life)

    @classmethod
    def of(cls, engine: Engine, half_life: float) -> "Counted | None":
        """Of a part without experts there is nothing to count."""
        try:
            here = engine.fingerprint()
        except ProfileError:
            return None
        return cls(tuple(here.expert_bytes), here.num_experts, half_life)

    def add(self, chunks: Sequence[Batch]) -> None:
        """They are of whole passes."""
        for chunk in chunks:
            for layer, ids in chunk.on_route.events if isinstance(chunk.on_route, Heard) else ():
                self._counter.add(layer, ids)

    def told(self) -> dict[str, Any]:
        """For a message."""
        uses, decayed = self._counter.counts()
        return {"layers": self._layers, "uses": uses.tolist(), "decayed": decayed.tolist()}
