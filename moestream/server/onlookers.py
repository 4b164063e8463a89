"""Those who look on: one collector for all of them, at work while there are any.

Owns that all are told, and that none of them holds up another. Used on the event loop's thread;
while passes run the collector tells by itself, and is asked where it says nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from typing import Any

from moestream.server.residency import Collector, Frame
from moestream.server.scheduler import Scheduler

_ASK_S = 0.35
_PING_S = 10.0
_MOST_UNHEARD = 64
"""Frames: whoever takes so few is left out, and may come again."""

News = dict[str, Any]


class Onlookers:
    """Hands on what a collector tells, to each one that listens."""

    def __init__(self, collector: Collector, scheduler: Scheduler) -> None:
        self.collector = collector
        self._scheduler = scheduler
        self._queues: set[asyncio.Queue[Frame | None]] = set()
        self._state: Frame | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked: Future[None] | None = None
        self._closed = False

    async def listen(self) -> AsyncGenerator[News | None, None]:
        """What there is to tell: the model first, then frames; None while there is nothing."""
        queue: asyncio.Queue[Frame | None] = asyncio.Queue(_MOST_UNHEARD)
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
        if self._task is not None:
            self._task.cancel()
        self._dismiss()

    def _dismiss(self) -> None:
        for queue in self._queues:
            if not queue.full():
                queue.put_nowait(None)

    async def _work(self) -> None:
        try:
            while self._queues and not self._closed:
                frames: asyncio.Queue[Frame] = asyncio.Queue()
                await self._ask(partial(self._begin, asyncio.get_running_loop(), frames))
                while self._queues and not self._closed:
                    await self._tell_next(frames)
                await self._ask(self._end)
        except (asyncio.CancelledError, CancelledError):
            self._closed = True  # the scheduler has ended, or is about to, and answers nobody
            self._dismiss()
        finally:
            self._state = self._asked = None

    def _begin(self, loop: asyncio.AbstractEventLoop, frames: asyncio.Queue[Frame]) -> None:
        def tell(frame: Frame) -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody listens any more
                loop.call_soon_threadsafe(frames.put_nowait, frame)

        self.collector.begin(tell)
        self._scheduler.look_on(self.collector.hear)

    def _end(self) -> None:
        self._scheduler.look_on(None)
        self.collector.end()

    async def _tell_next(self, frames: asyncio.Queue[Frame]) -> None:
        """Tell the next frame; where none comes for a while, see that one is made."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ASK_S):
                self._tell(await frames.get())
                return
        if self._asked is not None and self._asked.done():
            self._asked.result()
            self._asked = None
        if self._asked is None:  # in the middle of a long pass nobody is answered
            self._asked = self._scheduler.call(self.collector.tell)

    async def _ask(self, work: Callable[[], Any]) -> Any:
        return await asyncio.wrap_future(self._scheduler.call(work))

    def _tell(self, frame: Frame) -> None:
        self._state = frame.get("state", self._state)
        for queue in list(self._queues):
            if queue.full():
                self._queues.discard(queue)
            else:
                queue.put_nowait(frame)
