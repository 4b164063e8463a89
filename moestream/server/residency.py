"""What the experts do, for who looks on: which are used, read, guessed; where they are.

Collected on the scheduler's thread, and only while somebody looks: a pass notes what it routed, and
between two passes ``frame`` adds it up. Knows no HTTP. An expert is told by its *place*: the row of
its layer among those that have experts, times experts a layer, and its number in the layer.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.engine.engine import Engine
from moestream.layers.moe import RoutingEvent
from moestream.streaming.residency import Residency
from moestream.streaming.store import expert_sizes
from moestream.streaming.view import IN_MEMORY, KEPT

_MOST_NOTED = 1 << 14
"""Routings that are kept before they are added up, whether or not anybody asks."""

Places = NDArray[np.int64]


class Collector:
    """Notes what happens from ``begin`` to ``end``; all of it on the scheduler's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.sizes = expert_sizes(engine.file)
        """Bytes of an expert, by layer; empty where the model has none."""
        self.num_experts = engine.config.num_experts or 0
        self._rows = {layer: row for row, layer in enumerate(self.sizes)}
        self._noted: list[tuple[int, NDArray[np.int32], NDArray[np.bool_] | None, int]] = []
        self._counts = np.zeros((4, len(self.sizes) * self.num_experts), np.int64)
        self._tokens = 0
        self._told_state = b""

    @property
    def _residency(self) -> Residency | None:
        streaming = self._engine.streaming
        return None if streaming is None else streaming.residency

    def begin(self) -> None:
        """Somebody looks."""
        self._noted.clear()
        self._counts[:] = 0
        self._tokens, self._told_state = 0, b""
        if self._residency is not None:
            self._residency.guessed = []

    def end(self) -> None:
        """Nobody does any more."""
        self._noted.clear()
        if self._residency is not None:
            self._residency.guessed = None

    def hear(self, event: RoutingEvent) -> None:
        """Note a layer's routing; this is done for each layer of each token, so it does little."""
        residency = self._residency
        guesses = 0 if residency is None else len(residency.guessed or ())
        self._noted.append((event.layer, event.expert_ids, event.resident, guesses))
        if len(self._noted) >= _MOST_NOTED:
            self._add_up()

    def model(self) -> dict[str, Any]:
        """What does not change: layers, experts, sizes."""
        streaming, config = self._engine.streaming, self._engine.config
        return {
            "layers": list(self.sizes),
            "num_experts": self.num_experts,
            "num_experts_per_tok": config.num_experts_per_tok,
            "expert_bytes": list(self.sizes.values()),
            "streamed": streaming is not None,
            "experts_budget_bytes": None if streaming is None else streaming.plan.experts_bytes,
            "budget_bytes": self._engine.plan.budget_bytes if self._engine.plan else None,
        }

    def frame(self) -> dict[str, Any] | None:
        """What is new since the last one; None where nothing is."""
        self._add_up()
        state, resident_bytes, kept_bytes = self._state()
        if not self._tokens and not self._counts.any() and state == self._told_state:
            return None
        names = ("used", "read", "guessed", "vain")
        frame: dict[str, Any] = {"tokens": self._tokens}
        frame |= {name: _pairs(row) for name, row in zip(names, self._counts, strict=True)}
        if state != self._told_state:
            frame["state"] = b64encode(state).decode()
        frame["totals"] = self._totals() | {
            "resident_bytes": resident_bytes,
            "kept_bytes": kept_bytes,
        }
        self._counts[:] = 0
        self._tokens, self._told_state = 0, state
        return frame

    def _state(self) -> tuple[bytes, int, int]:
        """Marks of all places, and the bytes of those in memory and of those that stay there."""
        if self._residency is None:
            return b"", 0, 0
        marks = self._residency.marks().reshape(-1, self.num_experts)[list(self.sizes)]
        sizes = np.fromiter(self.sizes.values(), np.int64)
        here = marks & IN_MEMORY != 0
        stays = here & (marks & KEPT != 0)
        totals = [int(sizes @ which.sum(axis=1)) for which in (here, stays)]
        return marks.tobytes(), totals[0], totals[1]

    def _totals(self) -> dict[str, Any]:
        """Counts since the model was opened."""
        residency = self._residency
        if residency is None:
            return {}
        counts, tally = residency.counts, residency.tally()
        return {
            "hits": counts.decode.hits,
            "misses": counts.decode.misses,
            "foreseen": counts.decode.foreseen,
            "stall_s": round(counts.decode.stall_s + counts.prefill.stall_s, 4),
            "read_bytes": tally.read_bytes,
        }

    def _add_up(self) -> None:
        noted, self._noted = self._noted, []
        guessed = self._take_guesses()
        if not noted:
            return
        layers, ids, resident, marks = zip(*noted, strict=True)
        lengths = np.array([len(each) for each in ids])
        rows = np.array([self._rows[layer] for layer in layers])
        places = np.concatenate(ids) + (np.repeat(rows, lengths) * self.num_experts)[:, None]
        self._count(0, places)
        self._tokens += int(lengths[rows == 0].sum())
        if resident[0] is not None:
            self._count(1, places[~np.concatenate(resident)])
        if guessed:
            self._judge(self._places(guessed), np.array(marks), rows, lengths, places)

    def _judge(
        self,
        guessed: Places,
        marks: Places,
        rows: Places,
        lengths: Places,
        places: Places,
    ) -> None:
        """Count guesses by whether the layer that each was for used it; ``marks`` tell when made.

        A layer further on asks as many routings later.
        """
        made = np.searchsorted(marks, np.arange(len(guessed)), side="right")
        known = (guessed >= 0) & (made < len(rows))
        guessed, made = guessed[known], made[known]
        asks = made + guessed // self.num_experts - rows[made]
        due = (asks > made) & (asks < len(rows))
        guessed, asks = guessed[due], asks[due]
        first = np.cumsum(lengths) - lengths
        used = (places[first[asks]] == guessed[:, None]).any(axis=1)
        self._count(2, guessed[used])
        self._count(3, guessed[~used])

    def _take_guesses(self) -> list[int]:
        residency = self._residency
        if residency is None or not residency.guessed:
            return []
        guessed, residency.guessed = residency.guessed, []
        return guessed

    def _places(self, keys: Sequence[int]) -> Places:
        """Places of keys, -1 where a key is of no expert's first part."""
        n = self.num_experts
        return np.array([self._rows.get(key // n, -n) * n + key % n for key in keys]).clip(-1)

    def _count(self, row: int, places: Places) -> None:
        counts = self._counts[row]
        counts += np.bincount(places.ravel(), minlength=len(counts))


def _pairs(counts: Places) -> list[int]:
    """Places and their counts, one after the other."""
    (places,) = counts.nonzero()
    pairs: Iterable[Places] = (places, counts[places])
    return [int(each) for each in np.stack(list(pairs), axis=1).ravel()]
