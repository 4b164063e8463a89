"""What a pass gave for a token and for guesses after it, until it is known which of them are right.

Knows no model: a session runs the pass and takes back what was wrong.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.layers.moe import RouteObserver, RoutingEvent


class Ahead:
    """The logits after each token of such a pass, handed out one by one as they come true."""

    def __init__(
        self,
        tokens: Sequence[int],
        logits: NDArray[np.float32],
        events: Sequence[RoutingEvent] = (),
    ) -> None:
        """``logits`` are (T, V), one row a token; ``events`` are what routers decided for them.

        The rows of those may have others before them, which were run again.
        """
        self._tokens, self._logits, self._events = tokens, logits, events
        self.taken = 0
        """How many have come true; the first always does."""

    def has(self, token: int) -> bool:
        """Whether the next is this one."""
        return self.taken < len(self._tokens) and self._tokens[self.taken] == token

    @property
    def left(self) -> int:
        """Tokens that have not come true."""
        return len(self._tokens) - self.taken

    def take(self, on_route: RouteObserver | None) -> NDArray[np.float32]:
        """The logits (V,) after the next token, which is true; tell what was routed for it."""
        row, self.taken = self.taken, self.taken + 1
        if on_route is not None:
            for event in self._events:
                at = len(event.expert_ids) - len(self._tokens) + row
                on_route(rows_of(event, slice(at, at + 1)))
        logits: NDArray[np.float32] = self._logits[row]
        return logits


def rows_of(event: RoutingEvent, rows: slice) -> RoutingEvent:
    """What was routed for some rows of a pass."""
    ids, weights = event.expert_ids[rows], event.expert_weights[rows]
    return event._replace(x=event.x[rows], expert_ids=ids, expert_weights=weights)
