"""Answers to a request that is answered by the model: one JSON, or a stream of events.

Owns the life of such a request: a client that leaves ends its sequences within a step, a stream
says something every ten seconds. What is said is the API's own: see ``Speaker``.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from moestream.chat.output import Output
from moestream.chat.reuse import kept_told
from moestream.server.activity import Sequence as Running
from moestream.server.body import JSON, to_json
from moestream.server.completion import Answer, Task
from moestream.server.errors import APIError, api_error
from moestream.server.jobs import Event, Made, Reading
from moestream.server.model import Model
from moestream.server.running import Run
from moestream.server.state import State

PING_S = 10.0
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True, slots=True)
class Heard:
    """What is new of an answer: more of its output, and the tokens that it was made of."""

    index: int
    answer: Answer
    running: Running
    output: Sequence[Output]
    made: Sequence[Made]


class Speaker(Protocol):
    """One API's way to tell of answers; a value that it tells is one event's JSON."""

    def progress(self, index: int, reading: Reading, running: Running) -> Iterable[bytes]:
        """Tell how far a prompt is read."""

    def more(self, heard: Heard) -> Iterable[bytes]:
        """Tell what is new of an answer."""

    def end(self, index: int, answer: Answer, running: Running) -> Iterable[bytes]:
        """Tell that one has ended."""

    def close(self, answers: Sequence[Answer], running: Sequence[Running]) -> Iterable[bytes]:
        """Tell what comes after all of them."""

    def failed(self, error: APIError) -> bytes:
        """Tell that there is nothing more to come."""

    def whole(self, answers: Sequence[Answer], running: Sequence[Running]) -> Any:
        """All of it at once, as JSON."""


Prepare = Callable[[Model], tuple[Sequence[Task], Speaker]]


def event(value: Any, name: str | None = None) -> bytes:
    """One event of a stream."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + to_json(value) + b"\n\n"


class Answering:
    """An ASGI response: the answers to what ``prepare`` makes of a request, in a speaker's words.

    It is called beside the event loop, so that it may take its time.
    """

    def __init__(self, state: State, prepare: Prepare, *, stream: bool) -> None:
        self._state = state
        self._prepare = prepare
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the tasks and answer.

        Raises:
            MoestreamError, APIError: before anything was sent.
        """
        with self._state.admitted() as model:
            tasks, speaker = await asyncio.to_thread(self._prepare, model)
            self._state.check()
            answers = [Answer(task, model.tokenizer) for task in tasks]
            jobs = [task.job for task in tasks]
            with Run(model.scheduler, self._state.activity, jobs) as run:
                gone, ping = partial(run.call, "gone"), partial(run.call, "ping")
                async with listening(gone, receive, ping=ping if self._stream else None):
                    if self._stream:
                        await self._tell(run, answers, speaker, send)
                    elif await self._collect(run, answers):
                        whole = speaker.whole(answers, run.sequences)
                        await JSON(whole)(scope, receive, send)
                first = run.sequences[0]
                self._state.log(kept_told(len(first.job.prompt), first.cached))

    async def _collect(self, run: Run, answers: Sequence[Answer]) -> bool:
        """Wait for all answers; False if nobody does any more."""
        while any(answer.finish is None for answer in answers):
            news = await run.next()
            if news == "gone":
                return False
            if not isinstance(news, str):
                index, events = news
                answers[index].hear(events)
                if (error := answers[index].error) is not None:
                    raise error
                if answers[index].finish is not None:
                    run.cancel(index)
        return True

    async def _tell(
        self, run: Run, answers: Sequence[Answer], speaker: Speaker, send: Send
    ) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await _write(send, b": ok\n\n")
        last: bytes | None = None
        while last is None:
            news = await run.next()
            if news == "gone":
                return
            if news == "ping":
                await _write(send, _ping(run))
                continue
            assert not isinstance(news, str)
            index, events = news
            data = b""
            for each in events:  # tokens that were told together are still an event each
                new, last = self._told(run, answers, speaker, index, each)
                data += new
                if last is not None:
                    break
            if data:
                await _write(send, data)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    def _told(
        self,
        run: Run,
        answers: Sequence[Answer],
        speaker: Speaker,
        index: int,
        event: Event,
    ) -> tuple[bytes, bytes | None]:
        """What is to be sent now; and, at the end, what is sent last."""
        answer, running = answers[index], run.sequences[index]
        if answer.finish is not None:
            return b"", None
        data, had = b"", len(answer.made)
        for reading in answer.progress.hear((event,)):
            data += b"".join(speaker.progress(index, reading, running))
        new = answer.hear((event,))
        if answer.error is not None:
            self._state.warn(str(answer.error))
            return data, speaker.failed(api_error(answer.error))
        made = answer.made[had:]
        if new or made:
            data += b"".join(speaker.more(Heard(index, answer, running, new, made)))
        if answer.finish is None:
            return data, None
        run.cancel(index)
        data += b"".join(speaker.end(index, answer, running))
        if any(each.finish is None for each in answers):
            return data, None
        return data, b"".join(speaker.close(answers, run.sequences))


def _ping(run: Run) -> bytes:
    """A comment; while prompts are read, with how far."""
    reading = [each for each in run.sequences if each.ended is None and not each.made]
    if not reading:
        return b": ping\n\n"
    done, total = (sum(each.read for each in reading), sum(len(e.job.prompt) for e in reading))
    return f": reading {done}/{total}\n\n".encode()


async def _write(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


@asynccontextmanager
async def listening(
    gone: Callable[[], Any], receive: Receive, *, ping: Callable[[], Any] | None = None
) -> AsyncIterator[None]:
    """Call ``gone`` when the client goes away, and ``ping`` from time to time."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone()

    async def call(ping: Callable[[], Any]) -> None:
        while True:
            await asyncio.sleep(PING_S)
            ping()

    tasks = [asyncio.create_task(watch())]
    if ping is not None:
        tasks.append(asyncio.create_task(call(ping)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
