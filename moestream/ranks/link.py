"""The line between ranks: threads that send and receive, and one that notices who is gone.

Owns beats, silence and what a rank does when another fails. Knows nothing of what is said.

MLX's calls cannot be given a time limit. So the thread that computes never makes one: it looks into
a queue, and finds there what came, or that nothing will. What comes is always read, so that a rank
that computes for long is not taken for a silent one; how much comes is ``outbox``'s. A fault goes
on around the ring, as nobody but the next rank hears that one has fallen silent.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable

from moestream.engine.timeline import BrokenOff
from moestream.errors import RankError
from moestream.ranks.message import FRAME_BYTES, Kind, Message
from moestream.ranks.outbox import WINDOW_BYTES, Outbox
from moestream.ranks.transport import Transport, read_message, send_message

SILENCE_S = 6.0
"""Without a word for so long, a rank is given up."""
_BEAT_S = 1.0
_LOOK_S = 0.1
_END_S = 3.0
"""For how long the others are waited for at the end of one that has failed."""
_ECHO_S = 1.0
"""For how long they are at the end of all."""
_LEAVE_S = 1.0
"""After it, a rank that still computes what nobody waits for is ended."""
_SOON_S = 3.0
_TELL_BYTES = WINDOW_BYTES // 4
"""Rows that are taken up before the rank before is told so."""

_AGAIN = "see what it says on that machine, then start again"


class Link:
    """Messages to the next rank, and from the one before."""

    def __init__(self, ring: Transport, name: Callable[[int], str]) -> None:
        """Start the threads; ``name`` says how a person is told of a rank."""
        self._ring, self.name = ring, name
        self.rank, self.size = ring.rank, ring.size
        self._out = Outbox()
        self._in: queue.Queue[Message] = queue.Queue()
        self._fault: str | None = None
        self._over = threading.Event()
        """Set once the end was asked for: from then on, who goes is not missed."""
        self._ended = threading.Event()
        """Set when nobody is left to be waited for."""
        self._leaving = False
        self._taken_bytes = 0
        """Of rows, since the rank before was told."""
        self._heard = time.monotonic()
        self._sending: float | None = None
        for work in (self._send, self._receive, self._watch):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def send(self, message: Message, stop: Callable[[], bool] | None = None) -> None:
        """Have a message sent, soon; rows once the next rank has taken up earlier ones.

        Raises:
            BrokenOff: ``stop`` said so; it will not be sent.
            RankError: a rank has failed.
        """
        self.check()
        while not self._out.put(message, _LOOK_S):
            self._check_wait(stop, leaves=True)
            if self._ended.is_set():  # nobody takes them any more
                return

    def receive(self, *kinds: Kind, stop: Callable[[], bool] | None = None) -> Message:
        """Wait for a message, of one of these kinds if there are any; others are dropped.

        Raises:
            BrokenOff: ``stop`` said so.
            RankError: a rank has failed.
        """
        while True:
            self._check_wait(stop, leaves=Kind.ROWS in kinds)
            if (message := self.poll(*kinds)) is not None:
                return message

    def poll(self, *kinds: Kind) -> Message | None:
        """The same, where one comes soon. Raises RankError: a rank has failed."""
        self.check()
        try:
            message = self._in.get(timeout=_LOOK_S)
        except queue.Empty:
            return None
        if message.kind is Kind.RUN:
            self._tell_taken(message.row_bytes)
        return message if not kinds or message.kind in kinds else None

    def _check_wait(self, stop: Callable[[], bool] | None, *, leaves: bool) -> None:
        self.check()
        if (leaves and self._leaving) or (stop is not None and stop()):
            raise BrokenOff

    def _tell_taken(self, n_bytes: int) -> None:
        self._taken_bytes += n_bytes
        if self._taken_bytes >= _TELL_BYTES:
            self._out.put_first(Message(Kind.TAKEN, {"by": self.rank, "bytes": self._taken_bytes}))
            self._taken_bytes = 0

    def fail(self, told: str) -> None:
        """Have all ranks end; ``told`` says which failed, why, and what to do."""
        if self._fault is None and not self._over.is_set():
            self._fault = told
            if self.rank:
                self._end_this_rank(told)

    def leave(self) -> None:
        """Wait for no rows any more, whichever thread does; from then on none can be run."""
        self._leaving = True

    def end(self) -> None:
        """Have all ranks end, whatever they compute; to be called on the first."""
        if self._fault is None:
            self._over.set()
            self._out.put_first(Message(Kind.END))
            self._ended.wait(_ECHO_S)

    def flush(self) -> None:
        """Wait until all is sent, for a while."""
        self._out.flush(_END_S)

    def check(self) -> None:
        """See that all ranks are there. Raises RankError: one has failed."""
        if self._fault is not None:
            raise RankError(self._fault)

    def fails_soon(self) -> bool:
        """Whether a rank has failed, or is heard to have failed within a second."""
        until = time.monotonic() + _SOON_S
        while self._fault is None and not self._over.is_set() and time.monotonic() < until:
            time.sleep(_LOOK_S)
        return self._fault is not None

    def _end_this_rank(self, told: str) -> None:
        """Tell the next, wait until the first has told its user, and end whatever runs here."""

        def work() -> None:
            self._out.put_first(Message(Kind.FAULT, {"told": told}))
            self.flush()
            if told.startswith(self.name(0)):  # then there is nobody else to say it
                sys.stderr.write(f"error: {told}\n")
                sys.stderr.flush()
            else:
                self._ended.wait(_END_S)
            os._exit(1)

        threading.Thread(target=work, name="ending", daemon=True).start()

    def _leave_soon(self) -> None:
        """The first rank has ended: pass that on, and end whatever runs here, if it goes on."""

        def work() -> None:
            self.flush()
            time.sleep(_LEAVE_S)
            os._exit(0)

        self._out.put_first(Message(Kind.END))
        threading.Thread(target=work, name="leaving", daemon=True).start()

    def _send(self) -> None:
        frame_bytes = FRAME_BYTES
        while not self._ended.is_set():
            message = self._out.get(_BEAT_S)
            if not self._sends(message or Message(Kind.BEAT), frame_bytes):
                # Who has gone is told by the rank behind it, if there is one.
                time.sleep(_LOOK_S)
                self._lost((self.rank + 1) % self.size)
                return
            if message is not None:
                self._out.sent()
                if message.kind is Kind.DIVISION:
                    frame_bytes = message.body["frame_bytes"]

    def _sends(self, message: Message, frame_bytes: int) -> bool:
        def begins() -> None:
            self._sending = time.monotonic()

        try:
            send_message(self._ring, message, frame_bytes, begins)
        except RuntimeError:
            return False
        finally:
            self._sending = None
        return True

    def _receive(self) -> None:
        frame_bytes, before = FRAME_BYTES, (self.rank - 1) % self.size
        while not self._over.is_set() or self.rank == 0:
            try:
                message = read_message(self._ring, frame_bytes, self._hear_it_lives)
            except RuntimeError:
                self._lost(before)
                return
            except (RankError, ValueError, KeyError, TypeError) as error:
                known = isinstance(error, RankError)
                self.fail(f"{self.name(before)}: {error if known else 'its message is damaged'}")
                return
            if message.kind is Kind.DIVISION:
                frame_bytes = message.body["frame_bytes"]
            self._hear(message)
            if self._ended.is_set():
                return

    def _hear(self, message: Message) -> None:
        if message.kind is Kind.FAULT:
            self.fail(message.body["told"])
            return
        if message.kind is Kind.TAKEN:
            self._hear_taken(message)
            return
        if message.kind is Kind.END:
            self._over.set()
            if self.rank:
                self._leave_soon()
            else:
                self._ended.set()
        if message.kind is not Kind.BEAT:
            self._in.put(message)

    def _hear_taken(self, message: Message) -> None:
        """The next rank's word is for this one; others' travels on to those before them."""
        if message.body["by"] == (self.rank + 1) % self.size:
            self._out.taken(message.body["bytes"])
        else:
            self._out.put_first(message)

    def _hear_it_lives(self) -> None:
        self._heard = time.monotonic()

    def _lost(self, rank: int) -> None:
        """A connection has ended."""
        if self._fault is not None or self._over.is_set():
            self._ended.set()  # the others have heard of it
        self.fail(f"{self.name(rank)} has ended or cannot be reached; {_AGAIN}")

    def _watch(self) -> None:
        before, after = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        looked = awake = time.monotonic()
        while self._fault is None and not self._over.wait(_LOOK_S):
            now, sending = time.monotonic(), self._sending
            if now > looked + _BEAT_S:
                awake = now  # this process was stopped itself, or the machine slept
            looked = now
            for rank, since in ((before, self._heard), (after, sending)):
                if since is not None and now > max(since, awake) + SILENCE_S:
                    what = f"has not answered for {SILENCE_S:.0f} s"
                    self.fail(f"{self.name(rank)} {what}; {_AGAIN}")
