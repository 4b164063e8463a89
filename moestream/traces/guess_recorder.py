"""Records what each layer would guess of the next one's routing, for ``moestream simulate``.

Owns when a guess is written: in decode, with the token that it is for. The format is
``format``'s, a guess a row; a layer's guess comes from the residual stream one layer before.
"""

import os
from itertools import pairwise

from moestream.engine.engine import Engine
from moestream.engine.session import Session
from moestream.layers.moe import MoE, RouteObserver, RoutingEvent
from moestream.streaming.options import MOST_GUESSES
from moestream.traces.format import DECODE
from moestream.traces.passes import FileRecorder


class GuessRecorder(FileRecorder):
    """A trace of guesses, as wide as prefetching makes them at most. A context manager."""

    def __init__(self, path: str | os.PathLike[str], engine: Engine) -> None:
        """Raises TraceError, OSError: see ``FileRecorder``."""
        super().__init__(path, engine)
        layers = enumerate(engine.model.layers)
        moes = [(index, layer.ffn) for index, layer in layers if isinstance(layer.ffn, MoE)]
        self._next = {index: later for (index, _), later in pairwise(moes)}

    def observer(self, session: Session, turn: int = 0) -> RouteObserver:
        """Return what is to be called with every routing event of ``session`` in one turn."""
        to_numpy, passes = self._to_numpy, self._follow(session)

        def record(event: RoutingEvent) -> None:
            self._writer.begin()  # a model of one such layer guesses nothing
            if not session.decoding or event.layer not in self._next:
                return
            layer, moe = self._next[event.layer]
            most = min(MOST_GUESSES * moe.num_experts_per_tok, moe.num_experts)
            ids, probabilities = moe.likeliest(event.x, most)
            row = (turn, DECODE, len(session.tokens), layer, ids, to_numpy(probabilities))
            passes.add(event.layer, lambda: self._writer.record(*row))

        return record
