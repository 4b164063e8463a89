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

    def __call__(self, layer: int, x: Any, ahead: int) -> list[list[int]]:
        """Experts of each of the next ``ahead`` layers, from x (T, E) at ``layer``.

        Each once, all rows' first choices first.
        """

    def note(self, layer: int, x: Any) -> None:
        """Hear of the stream x (T, E) at a layer from which nothing is guessed now."""


_MOST_ROWS = 8
"""Tokens of a pass for which guesses are made: more want nearly all that a layer has."""
_NOTED = 4
"""One of so many passes is noted by layers from which nothing is guessed: the means go slowly."""
_NONE = np.empty(0, np.int32)
_REMEMBERED_AHEAD = 4
"""Layers ahead of which what is remembered is read: gates of the nearest know better."""


def union(expert_ids: NDArray[np.int32]) -> list[int]:
    """Each expert of (T, k) once, all rows' first choices first."""
    return list(dict.fromkeys(expert_ids.T.ravel().tolist()))


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

    def __call__(self, layer: int, x: Any, ahead: int) -> list[list[int]]:
        """See ``Foretell``."""
        return [union(self._predictors[later](x)) for later in self._after[layer][:ahead]]

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
        trusting: bool = True,
    ) -> None:
        """``prepare``, by layer, is told what to predict from soon, if one wait can serve both.

        ``clock`` tells the time in seconds. Unless it ``tries_without``, it always guesses. Unless
        it is ``trusting``, it guesses only after a trial has shown that this makes tokens faster.
        """
        self._residency = residency
        self._layers = list(layers)
        self._places = {layer: place for place, layer in enumerate(self._layers)}
        self._last = self._layers[-1]
        self._later = {
            layer: self._layers[place + 1 : place + 1 + layers_ahead]
            for place, layer in enumerate(self._layers)
        }
        self._foretell = foretell
        self.remembered = remembered
        """None reads nothing by the token."""
        self._expected: dict[int, list[int]] = {}
        """By the place of a layer, what this pass's tokens had there the last time."""
        self._prepare = prepare
        self.tries_without = tries_without
        self._trial = Trial(residency, clock, trusting=trusting)
        self._worth = Worth(residency, len(self._layers))
        self._clock = clock
        self._under_way = 0
        self._passes = 0
        self._is_short = True
        """Whether the pass that began last is one for which guesses are made."""
        self._tries, self._rests = True, False
        """Whether it tells of guesses at all, and whether it is run as if there were none."""
        self._guessed: dict[int, list[int]] = {}
        """By layer, the nearest guess of this pass."""
        self._routed: list[tuple[int, NDArray[np.int32]]] = []
        """Of this pass, what the layers were routed to."""
        self._guesses = self._notes = True
        """Whether guesses are made in this pass, and whether the streams of layers are noted."""
        self._prepared = False
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
        self._routed.clear()
        self._expected.clear()
        self._under_way += 1
        self._is_short = rows <= _MOST_ROWS
        if self._is_short:
            self._begin_token()
        else:
            self._rests = False
            self._worth.pause()
        if self.remembered is None:
            return
        known = tokens is not None and self._under_way == 1 and not self._rests
        self.remembered.begin(tokens if tokens is not None and known else _NONE)
        if known and self._is_short and self._guesses:
            for place, experts in enumerate(_by_layer(self.remembered.of_pass())):
                if self._residency.may_lack(self._layers[place], experts):
                    self._expected[place] = experts
            for place in range(_REMEMBERED_AHEAD):
                self._read_remembered(place, place + 1)

    def _begin_token(self) -> None:
        self._trial.begin_token()
        self._worth.begin_token()
        self._tries = self._worth.usually_pays
        self._rests = self.tries_without and (self._trial.rests or not self._tries)
        self._guesses = self.is_on and not self._rests
        self._passes += 1
        self._notes = self._passes % _NOTED == 0

    def after_pass(self) -> None:
        """A pass has come to its end, or is left where it is."""
        self._under_way -= 1
        self._worth.pause()

    def before_route(self, layer: int, x: Any) -> None:
        """Prepare the guesses from the residual stream ``x`` (T, E) of ``layer``, if that helps."""
        if self._prepare is None:
            return
        self._prepared = self._is_short and len(x) <= _MOST_ROWS and self._pays
        for later in self._later[layer] if self._prepared else ():
            self._prepare[later](x)

    def after_fetch(self, layer: int, x: Any, expert_ids: NDArray[np.int32]) -> None:
        """Guess from the residual stream ``x`` (T, E) of ``layer``, once its own reads are begun.

        ``expert_ids`` (T, k) are what it routed to: they tell how good its guesses were.
        """
        if len(expert_ids) > _MOST_ROWS or not self._is_short:
            if self.remembered is not None:
                self.remembered.learn(layer, expert_ids)
            self._foretell.note(layer, x)
            self._trial.pause()
            self._worth.pause()
            return
        # The caches hold weights now: what can wait for the pass's end is done there.
        if not self._rests:
            self._routed.append((layer, expert_ids))
            self._worth.heed()
            if self._pays if self._prepare is None else self._prepared:
                self._ask(layer, x)
            elif self._notes:
                self._foretell.note(layer, x)
            if self._expected:
                place = self._places[layer] + _REMEMBERED_AHEAD
                self._read_remembered(place, _REMEMBERED_AHEAD)
        if layer == self._last:
            self._settle()
            if self._tries:
                self._trial.next_token()

    @property
    def _pays(self) -> bool:
        """Whether guesses from the next layer that asks are worth making."""
        return self._guesses and (self._worth.pays or not self.tries_without)

    def _ask(self, layer: int, x: Any) -> None:
        started, later = self._clock(), self._later[layer]
        if not later:
            self._foretell.note(layer, x)
            return
        guesses = self._foretell(layer, x, len(later))
        self._guessed[later[0]] = guesses[0]
        for distance, guess in enumerate(guesses):
            self._residency.speculate(later[distance], guess, distance + 1)
        self._worth.took(self._clock() - started)

    def _settle(self) -> None:
        """Of a pass that ends: what is remembered of it, and how good its guesses were."""
        for layer, expert_ids in self._routed:
            if self.remembered is not None:
                self.remembered.learn(layer, expert_ids)
            guess = self._guessed.get(layer)
            if guess is not None:
                routed = expert_ids.ravel().tolist()
                record = self.recall.setdefault(layer, LayerRecall())
                record.routed += len(routed)
                record.predicted += sum(map(guess.__contains__, routed))
        self._routed.clear()

    def _read_remembered(self, place: int, ahead: int) -> None:
        """Of the layer at a place, which comes so many turns from now."""
        if place in self._expected:
            self._residency.speculate(self._layers[place], self._expected[place], ahead)
