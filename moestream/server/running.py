"""The jobs of one request, handed to the scheduler, and their events on the event loop.

Owns the way from the scheduler's thread to the loop, and that a request which ends, however, leaves
no job behind. Knows nothing of text or HTTP.
"""

import asyncio
from collections.abc import Sequence as SequenceOf
from contextlib import suppress
from functools import partial
from typing import Literal, Self

from moestream.server.activity import Activity, Sequence
from moestream.server.jobs import Event, Job
from moestream.server.scheduler import Scheduler

Call = Literal["ping", "gone"]
News = tuple[int, SequenceOf[Event]]
_MOST_UNHEARD = 10_000
"""Whoever takes so little that more events wait is given up: they would be kept till the end."""


class Run:
    """Sequences under way, in a ``with`` block that cancels at its end what still runs."""

    def __init__(self, scheduler: Scheduler, activity: Activity, jobs: SequenceOf[Job]) -> None:
        """Hand in the jobs: all of them or none.

        Raises:
            BusyError, ContextLengthError, ValueError: see ``Scheduler.submit``.
        """
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[News | Call] = asyncio.Queue()
        self._activity = activity
        self._left = False
        self._unheard = 0
        self.sequences: list[Sequence] = []
        try:
            for index, job in enumerate(jobs):
                ticket = scheduler.submit(job, partial(self._deliver, index))
                self.sequences.append(activity.begin(job, ticket))
        except BaseException:
            self.leave()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    async def next(self) -> News | Call:
        """What is new of which sequence; or what ``call`` was given."""
        news = await self._queue.get()
        if not isinstance(news, str):
            self._unheard -= len(news[1])
        return news

    def call(self, what: Call) -> None:
        """Let ``next`` return that, after all that is there already."""
        self._queue.put_nowait(what)

    def cancel(self, index: int) -> None:
        """End one sequence; its last event is still heard."""
        self.sequences[index].ticket.cancel()

    def leave(self) -> None:
        """Cancel what still runs. It keeps its place until the scheduler has let go of it."""
        self._left = True
        for sequence in self.sequences:
            if sequence.ended is None:
                sequence.ticket.cancel()

    def _deliver(self, index: int, events: SequenceOf[Event]) -> None:
        """Called on the scheduler's thread."""
        with suppress(RuntimeError):  # the loop has ended, and nobody listens any more
            self._loop.call_soon_threadsafe(self._arrive, index, events)

    def _arrive(self, index: int, events: SequenceOf[Event]) -> None:
        sequence = self.sequences[index]
        sequence.hear(events)
        if sequence.ended is not None:
            self._activity.end(sequence)
        if self._unheard >= _MOST_UNHEARD and not self._left:
            self.leave()
            self.call("gone")
        if not self._left:
            self._unheard += len(events)
            self._queue.put_nowait((index, events))
