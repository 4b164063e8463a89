"""How far a prompt is read, as a client is told: from what was read before to the end.

The scheduler tells that a sequence has a place before it knows what of it is kept, and nothing of
the last chunk, after which there is a token.
"""

from collections.abc import Iterator, Sequence

from moestream.server.jobs import Ended, Event, Failed, Made, Reading


class Progress:
    """Of one sequence."""

    def __init__(self) -> None:
        self._first: Reading | None = None
        """Held back until it is known whether anything was kept."""
        self._last: Reading | None = None
        self._done = False

    def hear(self, events: Sequence[Event]) -> Iterator[Reading]:
        """What is to be told of these."""
        for event in events:
            match event:
                case Reading() if self._last is None:
                    self._first = self._last = event
                case Reading():
                    if event.done > event.cached:
                        yield from self._released()
                    self._first, self._last = None, event
                    yield event
                case Made() if not self._done:
                    self._done = True
                    yield from self._end()
                case Made() | Ended() | Failed():
                    pass

    def _released(self) -> Iterator[Reading]:
        if self._first is not None:
            yield self._first
            self._first = None

    def _end(self) -> Iterator[Reading]:
        yield from self._released()
        last = self._last
        if last is not None and last.done < last.total:
            yield Reading(last.total, last.total, last.cached)
