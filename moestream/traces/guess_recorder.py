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
from moestream.layers.gates_ahead import GatesAhead
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
        streaming = engine.streaming
        self._gates = None if streaming and streaming.widened else GatesAhead(dict(moes))
        self._next = {
            index: moes[place : place + MOST_AHEAD] for place, (index, _) in enumerate(moes, 1)
        }

    def observer(self, session: Session, turn: int = 0) -> RouteObserver:
        """Return what is to be called with every routing event of ``session`` in one turn."""
        to_numpy, passes = self._to_numpy, self._follow(session)

        def record(event: RoutingEvent) -> None:
            self._writer.begin()  # a model of one such layer guesses nothing
            if not session.decoding:
                if self._gates is not None:
                    self._gates.note(event.layer, event.x)
                return
            rows = []
            asked = self._as_asked(event)
            for distance, (layer, moe) in enumerate(self._next[event.layer], 1):
                most = min(MOST_GUESSES * moe.num_experts_per_tok, moe.num_experts)
                ids, weights = moe.likeliest(event.x, most)
                first = [row[distance - 1] for row in asked]
                ids, found = _first(first, ids, to_numpy(weights))
                rows.append((len(session.tokens), layer, ids, found, distance))
            passes.add(lambda: self._write(turn, rows))

        return record

    def _as_asked(self, event: RoutingEvent) -> list[list[list[int]]]:
        """What the gates are asked in a run, by row and layers ahead; none if guesses are wider."""
        ahead = len(self._next[event.layer])
        if self._gates is None:
            return []
        if not ahead:
            self._gates.note(event.layer, event.x)
            return []
        rows = range(len(event.x))
        return [self._gates(event.layer, event.x[row : row + 1], ahead) for row in rows]

    def _write(self, turn: int, rows: list[_Guess]) -> None:
        for row in rows:
            self._writer.record(turn, DECODE, *row)


def _first(
    asked: list[list[int]], ids: NDArray[np.int32], weights: NDArray[Any]
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """The ids (T, n) with those that a run asks for first, and their weights."""
    found, own = ids.copy(), weights.copy()
    for row, wanted in enumerate(asked):
        weight_of = dict(zip(ids[row].tolist(), weights[row].tolist(), strict=True))
        order = [*wanted, *(expert for expert in weight_of if expert not in wanted)]
        found[row] = order[: ids.shape[1]]
        least = min(weight_of.values())
        own[row] = [weight_of.get(expert, least) for expert in found[row].tolist()]
    return found, own
