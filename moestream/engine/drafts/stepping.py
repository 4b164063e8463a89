"""From one token of an answer to the logits after it: by a pass of its own, or one that guessed it.

Owns when a pass is run ahead and when what was wrong is taken back. Knows nothing of sampling: it
is asked for the token that was chosen, whatever was guessed.
"""

import time
from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from moestream.engine.drafts.ahead import Ahead
from moestream.engine.drafts.drafting import Drafting
from moestream.engine.drafts.drafts import Drafts
from moestream.engine.drafts.mtp import Further
from moestream.engine.stats import Stats
from moestream.layers.moe import RouteObserver, RoutingEvent


class Timeline(Protocol):
    """What runs the tokens; see ``Session``."""

    tokens: list[int]
    stats: Stats
    further: Further | None

    @property
    def ahead(self) -> int: ...  # noqa: D102

    def run_last(self, token: int, on_route: RouteObserver | None) -> NDArray[np.float32]: ...  # noqa: D102

    def run_ahead(  # noqa: D102
        self, tokens: Sequence[int], on_route: RouteObserver | None
    ) -> NDArray[np.float32]: ...

    def own(self, token: int) -> None: ...  # noqa: D102

    def take_back(self) -> None: ...  # noqa: D102


class Stepping:
    """The steps of one answer; when it is left, what guesses hears of the last pass."""

    def __init__(
        self, timeline: Timeline, drafts: Drafts | None, on_route: RouteObserver | None
    ) -> None:
        self._timeline, self._on_route = timeline, on_route
        self._drafting: Drafting | None = None if drafts is None else drafts.begin(timeline.further)
        self._ahead: Ahead | None = None
        self._rows, self._took_s = 0, 0.0
        self.chosen: int | None = None
        """The token that was chosen for the next step."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        ahead, self._ahead = self._ahead, None
        if self._drafting is None or ahead is None:
            return
        right = ahead.taken - 1
        # Guesses that nothing was chosen in place of are neither right nor wrong.
        wrong = ahead.left > 0 and self.chosen is not None and not ahead.has(self.chosen)
        self._drafting.passed(self._rows, right + wrong, right, self._took_s)

    def after(self, token: int, most: int) -> NDArray[np.float32]:
        """The logits (V,) after a token that was chosen, of which ``most`` may be guessed more."""
        drafting, timeline, self.chosen = self._drafting, self._timeline, None
        if drafting is None:
            return timeline.run_last(token, self._on_route)
        if self._ahead is None or timeline.ahead != self._ahead.left or not self._ahead.has(token):
            self._settle(drafting)
            guessed = drafting.guess(timeline.tokens, token, most) if most > 0 else []
            self._rows = 1 + len(guessed) - timeline.ahead
            started = time.perf_counter()  # what guessing takes is known by who guesses
            if self._rows == 1:
                logits = timeline.run_last(token, self._on_route)
                drafting.passed(1, 0, 0, time.perf_counter() - started)
                return logits
            self._ahead = self._run([token, *guessed])
            self._took_s = time.perf_counter() - started
        timeline.stats.accepted_tokens += self._ahead.taken > 0
        logits = self._ahead.take(self._on_route)
        timeline.own(token)
        return logits

    def _run(self, tokens: list[int]) -> Ahead:
        events: list[RoutingEvent] = []
        hears = None if self._on_route is None else events.append
        logits = self._timeline.run_ahead(tokens, hears)
        self._timeline.stats.drafted_tokens += len(tokens) - 1
        return Ahead(tokens, logits, events)

    def _settle(self, drafting: Drafting) -> None:
        """Take back what was guessed wrongly."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        started = time.perf_counter()
        self._timeline.take_back()
        took_s = self._took_s + time.perf_counter() - started
        right = ahead.taken - 1
        drafting.passed(self._rows, right + ahead.left, right, took_s)
