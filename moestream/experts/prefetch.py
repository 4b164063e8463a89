"""Guesses which experts the next layers will want, and has them read while this one computes.

Owns whom to ask, what to ask for, and whether it pays. The guess is the next layer's own router on
this layer's residual stream; how that is computed is the caller's affair. Guesses never decide
what is computed, only what is read early.

Source: Eliseev and Mazur, arXiv 2312.17238, for gates applied one layer early; the switch is ours.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.experts.residency import Residency
from moestream.experts.statistics import LayerRecall

Predict = Callable[[Any], NDArray[np.int32]]
"""Expert ids (T, k) that a layer's router gives for the residual stream (T, E)."""

_WINDOW = 16
_PAUSE = 112
"""Tokens over which worth and cost are compared, and for which a loss switches guessing off."""
_LEAST_USEFUL = 1 / 3
"""Share of the bytes guessed that must be used: below it, guesses keep the disk from demand."""


class Prefetcher:
    """Reads ahead for ``layers_ahead`` layers, as long as that saves more than it costs."""

    def __init__(
        self,
        residency: Residency,
        predictors: Mapping[int, Predict],
        expert_bytes: Mapping[int, int],
        *,
        layers_ahead: int = 1,
        always: bool = False,
    ) -> None:
        order = sorted(predictors)
        self._residency = residency
        self._ahead = {
            layer: [
                (distance, later, predictors[later])
                for distance, later in enumerate(order[place + 1 : place + 1 + layers_ahead], 1)
            ]
            for place, layer in enumerate(order)
        }
        self._first = order[0] if order else -1
        self._worth = Worth(residency, sum(expert_bytes.values()) / max(len(expert_bytes), 1))
        self._always = always
        self._guessed: dict[int, set[int]] = {}  # by layer, the nearest guess of this pass
        self.recall: dict[int, LayerRecall] = residency.counts.recall

    @property
    def is_on(self) -> bool:
        """Whether guesses are being made, not counted as a loss lately."""
        return self._always or self._worth.pays

    def after_fetch(self, layer: int, x: Any, expert_ids: NDArray[np.int32]) -> None:
        """Guess from the residual stream ``x`` (T, E) of ``layer``, once its own reads are begun.

        ``expert_ids`` (T, k) are what it routed to: they tell how good its guesses were.
        """
        if len(expert_ids) != 1:
            return
        self._score(layer, expert_ids)
        if layer == self._first:
            self._worth.next_token()
        if not self.is_on:
            return
        started = time.perf_counter()
        for distance, later, predict in self._ahead[layer]:
            guess = predict(x)[0].tolist()
            if distance == 1:
                self._guessed[later] = set(guess)
            self._residency.speculate(later, guess, distance)
        self._worth.cost_s += time.perf_counter() - started

    def _score(self, layer: int, expert_ids: NDArray[np.int32]) -> None:
        guess = self._guessed.pop(layer, None)
        if guess is None:
            return
        record = self.recall.setdefault(layer, LayerRecall())
        routed = expert_ids[0].tolist()
        record.routed += len(routed)
        record.predicted += sum(expert in guess for expert in routed)


class Worth:
    """A running estimate of what guessing saves against what it costs.

    A useful guess saves at most the time to read an expert; a wrong one costs that time when the
    disk has demand to serve, which is the more often the more time is spent stalled. Mostly wrong
    ones are a loss whatever the times say: they are noisy, and the disk may be another's too.
    """

    def __init__(self, residency: Residency, expert_bytes: float) -> None:
        self.cost_s = 0.0
        self.saved_s = 0.0
        """What the last window brought, less what it cost."""
        self.pays = True
        self._residency = residency
        self._expert_bytes = expert_bytes
        self._tokens = 0
        self._since = (0, 0, 0.0)

    def next_token(self) -> None:
        """Note that a pass begins; at the end of a window, decide."""
        self._tokens += 1
        if self._tokens < (_WINDOW if self.pays else _PAUSE):
            return
        self._tokens = 0
        if not self.pays:
            self.pays = True  # try again: the workload may have moved on
            self._start_window()
            return
        stats = self._residency.stats()
        useful, wasted, stall_s = (
            now - then
            for now, then in zip(
                (stats.useful_bytes, stats.wasted_bytes, stats.decode.stall_s),
                self._since,
                strict=True,
            )
        )
        speed = stats.bandwidth or 1e9
        # Where nothing stalls, a wasted read disturbs nobody.
        loss_s = min(wasted / speed, stall_s)
        self.saved_s = useful / speed - loss_s - self.cost_s
        self.pays = self.saved_s > 0 and useful >= _LEAST_USEFUL * (useful + wasted)
        self._start_window()

    def _start_window(self) -> None:
        stats = self._residency.stats()
        self._since = (stats.useful_bytes, stats.wasted_bytes, stats.decode.stall_s)
        self.cost_s = 0.0
