"""Records what each layer would guess of the next one's routing, for ``moestream simulate``.

Owns when a guess is written: in decode, with the token that it is for. The format is
``format``'s, a guess a row; a layer's guess comes from the residual stream of a layer before, and
``residency`` says of how many layers before.
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.engine.engine import Engine
from moestream.engine.session import Session
from moestream.layers.moe import MoE, RouteObserver, RoutingEvent
from moestream.streaming.options import MOST_GUESSES
from moestream.traces.format import DECODE
from moestream.traces.passes import FileRecorder

MOST_AHEAD = 3
"""Layers from which a layer is guessed."""

_Guess = tuple[int, int, NDArray[np.int32], NDArray[Any], int]
"""Position, layer, ids, probabilities, and how many layers before."""


class GuessRecorder(FileRecorder):
    """A trace of guesses, as wide as prefetching makes them at most. A context manager."""

    def __init__(self, path: str | os.PathLike[str], engine: Engine) -> None:
        """Raises TraceError, OSError: see ``FileRecorder``."""
        super().__init__(path, engine)
        layers = enumerate(engine.model.layers)
        moes = [(index, layer.ffn) for index, layer in layers if isinstance(layer.ffn, MoE)]
        self._next = {
            index: moes[place : place + MOST_AHEAD] for place, (index, _) in enumerate(moes, 1)
        }

    def observer(self, session: Session, turn: int = 0) -> RouteObserver:
        """Return what is to be called with every routing event of ``session`` in one turn."""
        to_numpy, passes = self._to_numpy, self._follow(session)

        def record(event: RoutingEvent) -> None:
            self._writer.begin()  # a model of one such layer guesses nothing
            if not session.decoding:
                return
            rows = []
            for distance, (layer, moe) in enumerate(self._next[event.layer], 1):
                most = min(MOST_GUESSES * moe.num_experts_per_tok, moe.num_experts)
                ids, weights = moe.likeliest(event.x, most)
                rows.append((len(session.tokens), layer, ids, to_numpy(weights), distance))
            passes.add(lambda: self._write(turn, rows))

        return record

    def _write(self, turn: int, rows: list[_Guess]) -> None:
        for row in rows:
            self._writer.record(turn, DECODE, *row)
