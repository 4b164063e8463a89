"""Guesses beside routing: how many of the experts that a layer chose had been foreseen.

Guesses are a trace themselves, in the format of ``trace``: a row is an expert that an earlier layer
gave a probability, which is its weight, and whose ``residency`` says how many layers earlier: what
is recorded of the next one alone says 1. Knows nothing of what is in memory.
"""

import numpy as np
from numpy.typing import NDArray

from moestream.errors import TraceError
from moestream.streaming.statistics import LayerRecall
from moestream.traces.format import Trace
from moestream.traces.routed_sets import RoutedSets, routed_sets


def require_same_model(trace: Trace, guesses: Trace) -> None:
    """See that guesses are of the model that was traced.

    Raises:
        TraceError: they are not.
    """
    for name in ("num_layers", "num_experts", "num_experts_per_tok"):
        told, expected = getattr(guesses.header, name), getattr(trace.header, name)
        if told != expected:
            raise TraceError(
                f"{guesses.path}: {name} is {told}, in {trace.path} it is {expected}; "
                "give the guesses of the same run"
            )


def rows_ahead(guesses: Trace, layers: int) -> NDArray[np.void]:
    """The guesses that were made so many layers before the one that they are of."""
    found: NDArray[np.void] = guesses.rows[guesses.rows["residency"] == layers]
    return found


class Foresight:
    """What was guessed for the routed sets of a trace, narrowed to a ``mass`` of probability.

    Without one, the k likeliest are taken, as many as a token uses; with one, as many of those
    recorded as it takes to reach it, and k at least.

    Raises:
        TraceError: the guesses are of another model or another run.
    """

    def __init__(self, trace: Trace, guesses: Trace, mass: float | None = None) -> None:
        require_same_model(trace, guesses)
        self._k = trace.header.num_experts_per_tok
        self._mass = mass
        self.by_set = self._match(routed_sets(trace), guesses)
        """For each routed set, the keys guessed for it; None where no guess was made."""
        if not any(self.by_set):
            raise TraceError(
                f"{guesses.path}: has no guess for a token of {trace.path}; "
                "give the guesses of the same run"
            )

    def _match(self, sets: RoutedSets, guesses: Trace) -> list[frozenset[int] | None]:
        rows, n = rows_ahead(guesses, 1), guesses.header.num_experts
        found: dict[tuple[int, int, int], list[tuple[int, float]]] = {}
        columns = (rows[name].tolist() for name in ("turn", "step", "layer", "expert", "weight"))
        for turn, step, layer, expert, weight in zip(*columns, strict=True):
            found.setdefault((turn, step, layer), []).append((layer * n + expert, weight))
        places = zip(
            sets.turns.tolist(),
            sets.steps.tolist(),
            sets.layers.tolist(),
            sets.decode.tolist(),
            strict=True,
        )
        return [
            self._narrow(found[turn, step, layer])
            if decode and (turn, step, layer) in found
            else None
            for turn, step, layer, decode in places
        ]

    def _narrow(self, guess: list[tuple[int, float]]) -> frozenset[int]:
        n, reached = 0, 0.0
        for _, probability in guess:
            if n >= self._k and (self._mass is None or reached >= self._mass):
                break
            reached += probability
            n += 1
        return frozenset(key for key, _ in guess[:n])

    def recall(self, sets: RoutedSets) -> dict[int, LayerRecall]:
        """How much of each layer's routing was foreseen."""
        records: dict[int, LayerRecall] = {}
        number = 0
        for chunk in sets.chunks():
            for keys, _ in chunk:
                guess = self.by_set[number]
                if guess is not None:
                    record = records.setdefault(int(sets.layers[number]), LayerRecall())
                    record.routed += len(keys)
                    record.predicted += sum(key in guess for key in keys)
                number += 1
        return records
