"""Those who look on: one collector for all of them, at work while there are any.

Owns how often they are told, and that none of them holds up another. Used on the event loop's
thread; what is collected is asked of the scheduler's.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from moestream.server.residency import Collector
from moestream.server.scheduler import Scheduler

EVERY_S = 0.125
_PING_S = 10.0
_MOST_UNHEARD = 64
"""Frames: whoever takes so few is left out, and may come again."""

News = dict[str, Any]


class Onlookers:
    """Hands on what a collector tells, to each one that listens."""

    def __init__(self, collector: Collector, scheduler: Scheduler) -> None:
        self.collector = collector
        self._scheduler = scheduler
        self._queues: set[asyncio.Queue[News | None]] = set()
        self._state: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def listen(self) -> AsyncGenerator[News | None, None]:
        """What there is to tell: the model first, then frames; None while there is nothing."""
        queue: asyncio.Queue[News | None] = asyncio.Queue(_MOST_UNHEARD)
        self._queues.add(queue)
        try:
            yield {"model": self.collector.model() | {"state": self._state}}
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._work())
            while queue in self._queues and not self._closed:
                try:
                    async with asyncio.timeout(_PING_S):
                        frame = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                if frame is None:
                    return
                yield {"frame": frame}
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """Let all of them go."""
        self._closed = True
        for queue in self._queues:
            if not queue.full():
                queue.put_nowait(None)

    async def _work(self) -> None:
        try:
            while self._queues and not self._closed:
                await self._ask(self._begin)
                while self._queues and not self._closed:
                    self._tell(await self._ask(self.collector.frame))
                    await asyncio.sleep(EVERY_S)
                await self._ask(self._end)
        except asyncio.CancelledError:
            self.close()  # the scheduler has ended, and answers nobody
        finally:
            self._state = None

    def _begin(self) -> None:
        self.collector.begin()
        self._scheduler.look_on(self.collector.hear)

    def _end(self) -> None:
        self._scheduler.look_on(None)
        self.collector.end()

    async def _ask(self, work: Callable[[], Any]) -> Any:
        return await asyncio.wrap_future(self._scheduler.call(work))

    def _tell(self, frame: News | None) -> None:
        if frame is None:
            return
        self._state = frame.get("state", self._state)
        for queue in list(self._queues):
            if queue.full():
                self._queues.discard(queue)
            else:
                queue.put_nowait(frame)
