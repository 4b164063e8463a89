"""Guesses which experts later layers will want, and has them read while this one computes.

Owns whom to ask and what to ask for. A guess is a later layer's own router on this layer's
residual stream, or what the token was routed to the last time that it came; how the first is
computed is the caller's affair. Guesses never decide what is computed, only what is read early.

Sources: Eliseev and Mazur, arXiv 2312.17238, for gates applied one layer early; what is remembered
of tokens, and the switch, are ours.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moestream.streaming.remembered import RememberedRouting
from moestream.streaming.residency import Residency
from moestream.streaming.statistics import LayerRecall
from moestream.streaming.trial import Trial
from moestream.streaming.worth import Worth

Predict = Callable[[Any], NDArray[np.int32]]
"""Expert ids (T, k) that a layer's router gives for the residual stream (T, E)."""


class Foretell(Protocol):
    """Later layers' routers, asked together."""

    def __call__(self, layer: int, x: Any, ahead: int) -> Sequence[NDArray[np.int32]]:
        """Expert ids (T, k) of each of the next ``ahead`` layers, from x (T, E) at ``layer``."""

    def note(self, layer: int, x: Any) -> None:
        """Hear of the stream x (T, E) at a layer from which nothing is guessed now."""


_MOST_ROWS = 8
"""Tokens of a pass for which guesses are made: more want nearly all that a layer has."""
_NONE = np.empty(0, np.int32)
_REMEMBERED_AHEAD = 4
"""Layers ahead of which what is remembered is read: gates of the nearest know better."""


def _by_layer(found: NDArray[np.int16] | None) -> list[list[int]]:
    """Each expert of (T, layers, k) once a layer, but those that are not known."""
    if found is None:
        return []
    layers = found.transpose(1, 2, 0).reshape(found.shape[1], -1).tolist()
    return [[each for each in dict.fromkeys(experts) if each >= 0] for experts in layers]


class EachAlone:
    """``Foretell`` that asks each layer's predictor on its own."""

    def __init__(self, predictors: Mapping[int, Predict]) -> None:
        self._predictors = predictors
        order = sorted(predictors)
        self._after = {layer: order[place + 1 :] for place, layer in enumerate(order)}

    def __call__(self, layer: int, x: Any, ahead: int) -> Sequence[NDArray[np.int32]]:
        """See ``Foretell``."""
        return [self._predictors[later](x) for later in self._after[layer][:ahead]]

    def note(self, layer: int, x: Any) -> None:
        """They have no use for it."""


class Prefetcher:
    """Reads ahead for ``layers_ahead`` layers, as long as that saves more than it costs."""

    def __init__(
        self,
        residency: Residency,
        layers: Sequence[int],
        foretell: Foretell,
        *,
        layers_ahead: int = 1,
        remembered: RememberedRouting | None = None,
        prepare: Mapping[int, Callable[[Any], None]] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        tries_without: bool = True,
    ) -> None:
        """``prepare``, by layer, is told what to predict from soon, if one wait can serve both.

        ``clock`` tells the time in seconds. Unless it ``tries_without``, it always guesses.
        """
        self._residency = residency
        self._layers = list(layers)
        self._places = {layer: place for place, layer in enumerate(self._layers)}
        self._foretell = foretell
        self._layers_ahead = layers_ahead
        self.remembered = remembered
        """None reads nothing by the token."""
        self._expected: list[list[int]] = []
        """By the place of a layer, what this pass's tokens had there the last time."""
        self._prepare = prepare
        self.tries_without = tries_without
        self._trial = Trial(residency, clock)
        self._worth = Worth(residency, self._layers)
        self._clock = clock
        self._under_way = 0
        self._is_short = True
        """Whether the pass that began last is one for which guesses are made."""
        self._rests = False
        """Whether it is run as if there were no guesses."""
        self._guessed: dict[int, list[int]] = {}  # by layer, the nearest guess of this pass
        self.recall: dict[int, LayerRecall] = residency.counts.recall

    @property
    def is_on(self) -> bool:
        """Whether guesses are being made, and not found to cost more than they save."""
        return self._trial.guessing or not self.tries_without

    def before_pass(self, rows: int, tokens: NDArray[np.int32] | None = None) -> None:
        """A pass of so many rows begins: read what its tokens are remembered for; to be ended.

        Where it is not known which they are, or another pass is under way, whose layers may come
        in between, nothing is remembered of either.
        """
        self._guessed.clear()
        self._expected = []
        self._under_way += 1
        self._is_short = rows <= _MOST_ROWS
        self._rests = self._is_short and self.tries_without and self._trial.rests
        if self._is_short:
            self._trial.begin_token()
        if self._is_short and not self._rests:
            self._worth.begin_token()
        else:
            self._worth.pause()
        if self.remembered is None:
            return
        known = tokens is not None and self._under_way == 1 and not self._rests
        self.remembered.begin(tokens if tokens is not None and known else _NONE)
        if known and self._is_short and self.is_on:
            self._expected = _by_layer(self.remembered.of_pass())
            for place in range(min(_REMEMBERED_AHEAD, len(self._layers))):
                self._read_remembered(place, place + 1)

    def after_pass(self) -> None:
        """A pass has come to its end, or is left where it is."""
        self._under_way -= 1

    def before_route(self, layer: int, x: Any) -> None:
        """Prepare the guesses from the residual stream ``x`` (T, E) of ``layer``, if that helps."""
        if self._prepare is None or not self.is_on or len(x) > _MOST_ROWS:
            return
        if not self._pays(self._places[layer]):
            return
        for later in self._after(layer):
            self._prepare[later](x)

    def after_fetch(self, layer: int, x: Any, expert_ids: NDArray[np.int32]) -> None:
        """Guess from the residual stream ``x`` (T, E) of ``layer``, once its own reads are begun.

        ``expert_ids`` (T, k) are what it routed to: they tell how good its guesses were.
        """
        if self._rests and len(expert_ids) <= _MOST_ROWS:
            if layer == self._layers[-1]:
                self._trial.next_token()
            return
        if self.remembered is not None:
            self.remembered.learn(layer, expert_ids)
        if len(expert_ids) > _MOST_ROWS or not self._is_short:
            self._foretell.note(layer, x)
            self._trial.pause()
            return
        place = self._places[layer]
        self._worth.heed(place)
        if layer in self._guessed:
            self._score(layer, expert_ids)
        last = place + 1 == len(self._layers)
        if last or not self.is_on or not self._pays(place):
            self._foretell.note(layer, x)
        else:
            started = self._clock()
            self._ask(layer, place, x)
            self._worth.took(self._clock() - started)
        self._read_remembered(place + _REMEMBERED_AHEAD, _REMEMBERED_AHEAD)
        if last:
            self._trial.next_token()

    def _pays(self, place: int) -> bool:
        """Whether any of the guesses from the layer at a place is worth making."""
        if not self.tries_without:
            return True
        later = range(place + 1, min(place + 1 + self._layers_ahead, len(self._layers)))
        return any(self._worth.pays(each) for each in later)

    def _ask(self, layer: int, place: int, x: Any) -> None:
        later = self._after(layer)
        for distance, ids in enumerate(self._foretell(layer, x, len(later)), 1):
            following = self._layers[place + distance]
            guess = list(dict.fromkeys(ids.T.ravel().tolist()))  # all rows' first choices first
            if distance == 1:
                self._guessed[following] = guess
            self._residency.speculate(following, guess, distance)

    def _after(self, layer: int) -> list[int]:
        place = self._places[layer]
        return self._layers[place + 1 : place + 1 + self._layers_ahead]

    def _read_remembered(self, place: int, ahead: int) -> None:
        """Of the layer at a place, which comes so many turns from now."""
        if place < len(self._expected) and self._expected[place]:
            self._residency.speculate(self._layers[place], self._expected[place], ahead)

    def _score(self, layer: int, expert_ids: NDArray[np.int32]) -> None:
        guess = self._guessed.pop(layer)
        record = self.recall.setdefault(layer, LayerRecall())
        routed = expert_ids.ravel().tolist()
        record.routed += len(routed)
        record.predicted += sum(expert in guess for expert in routed)
