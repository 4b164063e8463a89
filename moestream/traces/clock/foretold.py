"""What is guessed of a layer, by a layer so many before: recorded, drawn by recall, or known.

Owns where a guess comes from. Knows nothing of what is read for it.
"""

import random
from collections.abc import Callable, Sequence

import numpy as np

from moestream.errors import TraceError
from moestream.traces.clock.turns import Pass
from moestream.traces.format import Trace
from moestream.traces.guesses import require_same_model, rows_ahead

Foretell = Callable[[Pass, int, int], Sequence[int]]
"""Experts that are guessed for the turn at a place of a pass, from so many layers before."""

Recalls = Sequence[Sequence[float]]
"""By layers ahead (from 1), the chances that an expert is guessed: from those of the first rank in
its token to those of the last, the others on the line between."""

MEASURED: Recalls = ((0.94, 0.77), (0.89, 0.67), (0.85, 0.61))
"""Of the demo model, on Italian and English: the gate of a later layer on this one's input."""


def foresee_all(turns: Pass, place: int, ahead: int) -> Sequence[int]:
    """Know the future."""
    return list(dict.fromkeys(turns[place].expert_ids.T.ravel().tolist()))


class Recorded:
    """Guesses that were recorded beside the trace: the k likeliest.

    Raises:
        TraceError: they are of another model or another run, or not of so many ``layers`` ahead.
    """

    def __init__(self, trace: Trace, guesses: Trace, layers: int) -> None:
        require_same_model(trace, guesses)
        self._found: dict[tuple[int, int, int, int], list[int]] = {}
        most = trace.header.num_experts_per_tok
        for ahead in range(1, layers + 1):
            rows = rows_ahead(guesses, ahead)
            if not len(rows) and ahead < len(trace.header.expert_bytes):
                raise TraceError(
                    f"{guesses.path}: has no guesses of {ahead} layers ahead; record them again, "
                    "or simulate fewer"
                )
            columns = (rows[name].tolist() for name in ("turn", "step", "layer", "expert"))
            for turn, step, layer, expert in zip(*columns, strict=True):
                guess = self._found.setdefault((turn, step, layer, ahead), [])
                if len(guess) < most:
                    guess.append(expert)

    def __call__(self, turns: Pass, place: int, ahead: int) -> Sequence[int]:
        """See ``Foretell``."""
        turn = turns[place]
        return self._found.get((*turn.mark, turn.layer, ahead), ())


class Drawn:
    """As many guesses as a token uses, right as often as ``recalls`` say, and else of any others.

    Of prompts nothing is guessed. The same turn is guessed alike in every replay.
    """

    def __init__(self, recalls: Recalls, num_experts: int) -> None:
        self._recalls = recalls
        self._num_experts = num_experts
        self._chances: dict[tuple[int, int], list[float]] = {}

    def __call__(self, turns: Pass, place: int, ahead: int) -> Sequence[int]:
        """See ``Foretell``."""
        turn = turns[place]
        if ahead > len(self._recalls) or not turn.decode:
            return ()
        routed: list[int] = turn.expert_ids[0].tolist()
        recall = self._recall(len(routed), ahead)
        # The nearer guess is right where the farther one was: one draw for all distances.
        chance = random.Random(hash((*turn.mark, turn.layer)))
        draws = [chance.random() for _ in routed]
        others = [expert for expert in range(self._num_experts) if expert not in routed]
        wrong = iter(chance.sample(others, min(len(routed), len(others))))
        return [
            expert if draw < right else next(wrong, expert)
            for expert, draw, right in zip(routed, draws, recall, strict=True)
        ]

    def _recall(self, k: int, ahead: int) -> list[float]:
        """Chances by rank, of so many experts."""
        if (k, ahead) not in self._chances:
            told = self._recalls[ahead - 1]
            places = np.linspace(0, len(told) - 1, k)
            self._chances[k, ahead] = np.interp(places, range(len(told)), told).tolist()
        return self._chances[k, ahead]
