"""What the experts do, for who looks on: which are used, read, guessed; where they are.

Collected on the scheduler's thread, and only while somebody looks: a pass notes what it routed, and
``frame`` adds it up a few times a second. Knows no HTTP. An expert is told by its *place*: the row
of its layer among those that have experts, times experts a layer, and its number in the layer.
"""

import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.engine.engine import Engine
from moestream.layers.moe import RoutingEvent
from moestream.server.judging import GuessJudge
from moestream.streaming.residency import Residency
from moestream.streaming.store import expert_sizes
from moestream.streaming.view import IN_MEMORY, KEPT

EVERY_S = 0.3
"""Between two frames. The tokens of as many tenths of a second have been told just then: to wake
those who hear of them a second time would take the cores that compute."""

_USED, _READ, _GUESSED, _VAIN = range(4)
_COUNTS = ("used", "read", "guessed", "vain")

Frame = dict[str, Any]
Places = NDArray[np.int64]


class Collector:
    """Notes what happens from ``begin`` to ``end``; all of it on the scheduler's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.sizes = expert_sizes(engine.file)
        """Bytes of an expert, by layer; empty where the model has none."""
        self.num_experts = engine.config.num_experts or 0
        self._rows = {layer: row for row, layer in enumerate(self.sizes)}
        self._first = next(iter(self.sizes), -1)
        self._noted: list[tuple[int, NDArray[np.int32], Sequence[int] | None, int]] = []
        self._counts = np.zeros((len(_COUNTS), len(self.sizes) * self.num_experts), np.int64)
        self._judge = GuessJudge(self.num_experts)
        self._tokens = 0
        self._told_state: Frame | None = None
        self._residency: Residency | None = None
        self._guessed: list[int] = []
        self._tell: Callable[[Frame], None] = lambda frame: None
        self._due = 0.0

    def begin(self, tell: Callable[[Frame], None]) -> None:
        """Somebody looks, and is told of frames while passes run."""
        streaming = self._engine.streaming
        self._residency = None if streaming is None else streaming.residency
        self._noted, self._guessed, self._tell = [], [], tell
        self._judge = GuessJudge(self.num_experts)
        self._counts[:] = 0
        self._tokens, self._told_state, self._due = 0, None, 0.0
        if self._residency is not None:
            self._residency.guessed = self._guessed

    def end(self) -> None:
        """Nobody does any more."""
        self._noted, self._guessed = [], []
        if self._residency is not None:
            self._residency.guessed = None

    def hear(self, event: RoutingEvent) -> None:
        """Note a layer's routing; this is done for each layer of each token, so it does little."""
        now = time.perf_counter()
        # Best where a pass begins, when tokens have just been told; but some take very long.
        if now >= self._due and (event.layer == self._first or now >= self._due + EVERY_S):
            self.tell()
        self._noted.append((event.layer, event.expert_ids, event.missing, len(self._guessed)))

    def tell(self) -> None:
        """Tell what is new, if anything is."""
        if (frame := self.frame()) is not None:
            self._tell(frame)

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

    def frame(self) -> Frame | None:
        """What is new since the last one; None where nothing is."""
        self._due = (time.perf_counter() // EVERY_S + 1) * EVERY_S
        self._add_up()
        state, sums = self._state()
        if not self._tokens and not self._counts.any() and state == self._told_state:
            return None
        frame: Frame = {"tokens": self._tokens}
        frame |= {name: _pairs(row) for name, row in zip(_COUNTS, self._counts, strict=True)}
        if state != self._told_state:
            frame["state"] = state
        frame["totals"] = self._totals() | sums
        self._counts[:] = 0
        self._tokens, self._told_state = 0, state
        return frame

    def _state(self) -> tuple[Frame | None, Frame]:
        """Which are in memory and which stay there, a bit a place; and the bytes of both."""
        if self._residency is None:
            return None, {}
        marks = self._residency.marks().reshape(-1, self.num_experts)[list(self.sizes)]
        sizes = np.fromiter(self.sizes.values(), np.int64)
        here = marks & IN_MEMORY != 0
        stays = marks & KEPT != 0
        sums = [int(sizes @ which.sum(axis=1)) for which in (here, stays & here)]
        return (
            {"here": _bits(here), "kept": _bits(stays)},
            {"resident_bytes": sums[0], "kept_bytes": sums[1]},
        )

    def _totals(self) -> Frame:
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
        if not noted:
            return
        layers, ids, missing, made = zip(*noted, strict=True)
        rows = np.array([self._rows[layer] for layer in layers])
        bases = rows * self.num_experts
        lengths = np.array([len(each) for each in ids])
        places = np.concatenate(ids) + np.repeat(bases, lengths)[:, None]
        self._count(_USED, places)
        self._tokens += int(lengths[rows == 0].sum())
        if missing[0] is None:
            return
        absent = np.fromiter(chain.from_iterable(missing), np.int64)
        self._count(_READ, absent + np.repeat(bases, [len(each) for each in missing]))
        if guessed := self._places(self._guessed):
            self._judge.add(guessed, made)
        self._guessed.clear()
        for which, judged in zip(
            (_GUESSED, _VAIN), self._judge.judge(rows, lengths, places), strict=True
        ):
            self._count(which, judged)

    def _places(self, keys: Sequence[int]) -> list[int]:
        """Places of keys, -1 where a key is of no expert's first part."""
        rows, n = self._rows, self.num_experts
        return [rows[key // n] * n + key % n if key // n in rows else -1 for key in keys]

    def _count(self, row: int, places: Places) -> None:
        counts = self._counts[row]
        counts += np.bincount(places.ravel(), minlength=len(counts))


def _pairs(counts: Places) -> str:
    """Places and their counts, one after the other: base64 of 32 bits each, the lowest first."""
    (places,) = counts.nonzero()
    return _text(np.stack((places, counts[places]), axis=1).astype("<u4"))


def _bits(marks: NDArray[np.bool_]) -> str:
    """Base64 of a bit each, of each byte the lowest first."""
    return _text(np.packbits(marks, bitorder="little"))


def _text(values: NDArray[Any]) -> str:
    return b64encode(values.tobytes()).decode()
