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

from moestream.streaming.residency import Residency
from moestream.streaming.statistics import LayerRecall

Predict = Callable[[Any], NDArray[np.int32]]
"""Expert ids (T, k) that a layer's router gives for the residual stream (T, E)."""

_MOST_ROWS = 8
"""Tokens of a pass for which guesses are made: more want nearly all that a layer has."""
_WINDOW = 8
"""Tokens of a trial, with guesses or without."""
_KEPT = 120
"""Tokens for which the better of the two is kept to, before the other is tried again."""
_TRIALS = 4
"""Windows before the first choice: each kind twice, since the first few tokens start cold."""
_LEAST_GAIN = 0.1
"""Share of the cost without guesses that they must save: their reads take processor time too."""
_NEWS = 0.5
"""Weight of the latest window in the running cost of its kind."""


class Prefetcher:
    """Reads ahead for ``layers_ahead`` layers, as long as that saves more than it costs."""

    def __init__(
        self,
        residency: Residency,
        predictors: Mapping[int, Predict],
        *,
        layers_ahead: int = 1,
        prepare: Mapping[int, Callable[[Any], None]] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        tries_without: bool = True,
    ) -> None:
        """``prepare``, by layer, is told what to predict from soon, if one wait can serve both.

        ``clock`` tells the time in seconds. Unless it ``tries_without``, it always guesses.
        """
        order = sorted(predictors)
        self._residency = residency
        self._ahead = {
            layer: [
                (distance, later, predictors[later])
                for distance, later in enumerate(order[place + 1 : place + 1 + layers_ahead], 1)
            ]
            for place, layer in enumerate(order)
        }
        self._prepare = prepare
        self._clock = clock
        self.tries_without = tries_without
        self._first = order[0] if order else -1
        self._trial = Trial(residency)
        self._guessed: dict[int, set[int]] = {}  # by layer, the nearest guess of this pass
        self.recall: dict[int, LayerRecall] = residency.counts.recall

    @property
    def is_on(self) -> bool:
        """Whether guesses are being made, and not found to cost more than they save."""
        return self._trial.guessing or not self.tries_without

    def before_route(self, layer: int, x: Any) -> None:
        """Prepare the guesses from the residual stream ``x`` (T, E) of ``layer``, if that helps."""
        if self._prepare is None or not self.is_on or len(x) > _MOST_ROWS:
            return
        started = self._clock()
        for _, later, _ in self._ahead[layer]:
            self._prepare[later](x)
        self._trial.spent_s += self._clock() - started

    def after_fetch(self, layer: int, x: Any, expert_ids: NDArray[np.int32]) -> None:
        """Guess from the residual stream ``x`` (T, E) of ``layer``, once its own reads are begun.

        ``expert_ids`` (T, k) are what it routed to: they tell how good its guesses were.
        """
        if len(expert_ids) > _MOST_ROWS:
            self._trial.pause()
            return
        self._score(layer, expert_ids)
        if layer == self._first:
            self._trial.next_token()
        if not self.is_on:
            return
        started = self._clock()
        for distance, later, predict in self._ahead[layer]:
            guess = list(
                dict.fromkeys(predict(x).T.ravel().tolist())
            )  # all rows' first choices first
            if distance == 1:
                self._guessed[later] = set(guess)
            self._residency.speculate(later, guess, distance)
        self._trial.spent_s += self._clock() - started

    def _score(self, layer: int, expert_ids: NDArray[np.int32]) -> None:
        guess = self._guessed.pop(layer, None)
        if guess is None:
            return
        record = self.recall.setdefault(layer, LayerRecall())
        routed = expert_ids.ravel().tolist()
        record.routed += len(routed)
        record.predicted += sum(expert in guess for expert in routed)


class Trial:
    """Guesses for a window of tokens, does without for another, and keeps to what costs less.

    A token costs the time that it stalls and the time that its guesses take to make. Both are
    measured rather than inferred: what a guess saves depends on what else the disk has to do,
    and wrong ones are not free while it is busy.
    """

    def __init__(self, residency: Residency) -> None:
        self.guessing = True
        self.spent_s = 0.0
        """Time that guesses took in this window."""
        self._residency = residency
        self._cost_s: dict[bool, float] = {}  # of a token, with guesses and without
        self._windows = self._tokens = 0
        self._length = _WINDOW
        self._stalled_s = 0.0
        self._paused_at: float | None = None

    def pause(self) -> None:
        """Until the next token, guesses have nothing to do with what is waited for."""
        if self._paused_at is None:
            self._paused_at = self._waited_s

    @property
    def _waited_s(self) -> float:
        counts = self._residency.counts
        return counts.decode.stall_s + counts.prefill.stall_s

    def next_token(self) -> None:
        """Note that a pass begins; at the end of a window, decide what the next one does."""
        if self._paused_at is not None:
            self._stalled_s += self._waited_s - self._paused_at
            self._paused_at = None
        self._tokens += 1
        if self._tokens < self._length:
            return
        stalled_s = self._waited_s
        cost_s = (stalled_s - self._stalled_s + self.spent_s) / self._tokens
        before = self._cost_s.get(self.guessing, cost_s)
        self._cost_s[self.guessing] = before + (cost_s - before) * _NEWS
        self._windows += 1
        self._stalled_s, self.spent_s, self._tokens = stalled_s, 0.0, 0
        if self._windows < _TRIALS or self._length == _KEPT:
            self.guessing, self._length = not self.guessing, _WINDOW
        else:
            self.guessing = self._cost_s[True] < (1 - _LEAST_GAIN) * self._cost_s[False]
            self._length = _KEPT
