"""The line between ranks: threads that send and receive, and one that notices who is gone.

Owns beats, silence and what a rank does when another fails. Knows nothing of what is said.

MLX's calls cannot be given a time limit. So the thread that computes never makes one: it looks into
a queue, and finds there what came, or that nothing will. A fault travels on around the ring, as
nobody but the next rank hears that one has fallen silent.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moestream.errors import RankError
from moestream.ranks.message import FRAME_BYTES, Kind, Message, bytes_to_come, decode, encode

SILENCE_S = 6.0
"""Without a word for so long, a rank is given up."""
_BEAT_S = 1.0
_LOOK_S = 0.2
_END_S = 3.0
"""For how long the others are waited for at the end."""
_QUEUED = 2
"""Messages that may wait to be sent."""

_AGAIN = "see what it says on that machine, then start again"


class Transport(Protocol):
    """What carries bytes around the ring."""

    rank: int
    size: int

    def send(self, data: NDArray[np.uint8]) -> None:
        """To the next rank. Raises RuntimeError: it has gone."""

    def receive(self, n_bytes: int) -> NDArray[np.uint8]:
        """Of the rank before. Raises RuntimeError: it has gone."""


class Link:
    """Messages to the next rank, and from the one before."""

    def __init__(self, ring: Transport, name: Callable[[int], str]) -> None:
        """Start the threads; ``name`` says how a person is told of a rank."""
        self._ring, self.name = ring, name
        self.rank, self.size = ring.rank, ring.size
        self._out: queue.Queue[Message] = queue.Queue(_QUEUED)
        self._in: queue.Queue[Message] = queue.Queue()
        self._fault: str | None = None
        self._over = threading.Event()
        """Set once the end was asked for: from then on, who goes is not missed."""
        self._ended = threading.Event()
        """Set when nobody is left to be waited for."""
        self._heard = time.monotonic()
        self._sending: float | None = None
        for work in (self._send, self._receive, self._watch):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def send(self, message: Message) -> None:
        """Have a message sent, soon.

        Raises:
            RankError: a rank has failed.
        """
        while True:
            self.check()
            try:
                return self._out.put(message, timeout=_LOOK_S)
            except queue.Full:
                if self._ended.is_set():  # nobody takes them any more
                    return None

    def receive(self, *kinds: Kind) -> Message:
        """Wait for a message, of one of these kinds if there are any; others are dropped.

        Raises:
            RankError: a rank has failed.
        """
        while True:
            try:
                message = self._in.get(timeout=_LOOK_S)
            except queue.Empty:
                self.check()
                continue
            if not kinds or message.kind in kinds:
                return message

    def fail(self, told: str) -> None:
        """Have all ranks end; ``told`` says which failed, why, and what to do."""
        if self._fault is None and not self._over.is_set():
            self._fault = told
            if self.rank:
                self._end_this_rank(told)

    def end(self) -> None:
        """Have all ranks end, as they are no longer needed; to be called on the first."""
        with suppress(RankError):
            self.send(Message(Kind.END))
            self._over.set()
            self._ended.wait(_END_S)

    def flush(self) -> None:
        """Wait until all is sent, for a while."""
        until = time.monotonic() + _END_S
        while (self._out.unfinished_tasks or self._sending) and time.monotonic() < until:
            time.sleep(0.01)

    def check(self) -> None:
        """See that all ranks are there. Raises RankError: one has failed."""
        if self._fault is not None:
            raise RankError(self._fault)

    def _end_this_rank(self, told: str) -> None:
        """Tell the next, wait until the first has told its user, and end whatever runs here."""

        def work() -> None:
            with suppress(queue.Full):
                self._out.put(Message(Kind.FAULT, {"told": told}), timeout=_END_S)
                self.flush()
            if told.startswith(self.name(0)):  # then there is nobody else to say it
                sys.stderr.write(f"error: {told}\n")
                sys.stderr.flush()
            else:
                self._ended.wait(_END_S)
            os._exit(1)

        threading.Thread(target=work, name="ending", daemon=True).start()

    def _send(self) -> None:
        frame_bytes = FRAME_BYTES
        while not self._ended.is_set():
            try:
                message = self._out.get(timeout=_BEAT_S)
            except queue.Empty:
                message = Message(Kind.BEAT)
            if not self._sends(encode(message, frame_bytes)):
                # Who has gone is told by the rank behind it, if there is one.
                time.sleep(_LOOK_S)
                self._lost((self.rank + 1) % self.size)
                return
            if message.kind is not Kind.BEAT:
                self._out.task_done()
            if message.kind is Kind.DIVISION:
                frame_bytes = message.body["frame_bytes"]

    def _sends(self, data: NDArray[np.uint8]) -> bool:
        self._sending = time.monotonic()
        try:
            self._ring.send(data)
        except RuntimeError:
            return False
        finally:
            self._sending = None
        return True

    def _receive(self) -> None:
        frame_bytes, before = FRAME_BYTES, (self.rank - 1) % self.size
        while not self._over.is_set() or self.rank == 0:
            try:
                message = self._read(frame_bytes)
            except RuntimeError:
                self._lost(before)
                return
            except (RankError, ValueError, KeyError, TypeError) as error:
                known = isinstance(error, RankError)
                self.fail(f"{self.name(before)}: {error if known else 'its message is damaged'}")
                return
            self._heard = time.monotonic()
            if message.kind is Kind.DIVISION:
                frame_bytes = message.body["frame_bytes"]
            self._hear(message)
            if self._ended.is_set():
                return

    def _hear(self, message: Message) -> None:
        if message.kind is Kind.FAULT:
            self.fail(message.body["told"])
            return
        if message.kind is Kind.END:
            self._over.set()
            if self.rank == 0:
                self._ended.set()
        if message.kind is not Kind.BEAT:
            self._in.put(message)

    def _read(self, frame_bytes: int) -> Message:
        frame = self._ring.receive(frame_bytes)
        more = bytes_to_come(frame)
        return decode(np.concatenate([frame, self._ring.receive(more)]) if more else frame)

    def _lost(self, rank: int) -> None:
        """A connection has ended."""
        if self._fault is not None or self._over.is_set():
            self._ended.set()  # the others have heard of it
        self.fail(f"{self.name(rank)} has ended or cannot be reached; {_AGAIN}")

    def _watch(self) -> None:
        before, after = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        while self._fault is None and not self._over.wait(_LOOK_S):
            now, sending = time.monotonic(), self._sending
            for rank, since in ((before, self._heard), (after, sending)):
                if since is not None and now > since + SILENCE_S:
                    what = f"has not answered for {SILENCE_S:.0f} s"
                    self.fail(f"{self.name(rank)} {what}; {_AGAIN}")
