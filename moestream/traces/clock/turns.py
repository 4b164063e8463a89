"""What layers ask for, turn by turn, as ``Residency.fetch`` is told of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.traces.format import DECODE, Trace
from moestream.traces.routed_sets import boundaries


@dataclass(frozen=True, slots=True)
class Turn:
    """One layer and the experts (T, k) that it chose in one pass; ``mark`` finds its guesses."""

    layer: int
    expert_ids: NDArray[np.int32]
    decode: bool
    mark: tuple[int, int]
    """The trace's own numbers of its first row: turn and step."""


Pass = Sequence[Turn]


def passes_of(trace: Trace) -> Sequence[Pass]:
    """The passes of a trace, each with its layers in order."""
    rows = trace.rows
    new_pass, new_set = boundaries(rows)
    starts = np.append(np.flatnonzero(new_set), len(rows))
    columns = ("turn", "step", "layer")
    marks = zip(*(rows[name][new_set].tolist() for name in columns), strict=True)
    decode = (rows["phase"] == DECODE)[new_set].tolist()
    begins = new_pass[new_set].tolist()
    experts = rows["expert"].astype(np.int32)
    passes: list[list[Turn]] = []
    for place, (turn, step, layer) in enumerate(marks):
        ids = experts[starts[place] : starts[place + 1]]
        one_token = decode[place]
        chosen = ids[None] if one_token else _by_token(rows, starts, place, ids)
        if begins[place]:
            passes.append([])
        passes[-1].append(Turn(layer, chosen, one_token, (turn, step)))
    return passes


def _by_token(
    rows: NDArray[np.void], starts: NDArray[np.int64], place: int, ids: NDArray[np.int32]
) -> NDArray[np.int32]:
    """A prompt's ids, a row a token; a token of which less was recorded repeats what was."""
    steps = rows["step"][starts[place] : starts[place + 1]]
    firsts = np.flatnonzero(np.append(True, steps[1:] != steps[:-1]))
    parts = np.split(ids, firsts[1:])
    most = max(map(len, parts))
    return np.stack([np.resize(part, most) for part in parts])
