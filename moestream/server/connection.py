"""A client's connection: ended where a request's head does not come, or an answer is not taken.

Owns how long both may take. What is sent, and that an ended connection ends its sequences, is
``sse``'s; a request's body has a limit of its own.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""For a request's first line and headers, from the connection or from their first byte on."""
LONGEST_SEND_S = 30.0
"""Within it what waits to be sent must have become little again."""


class Connection(H11Protocol):
    """Ends itself when its client says, or reads, too little for too long.

    uvicorn itself limits the time between an answer and the first byte of the next request alone.
    """

    _head: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Wait on, or no more."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop("_head")
        elif self._head is None:
            self._await_head()

    def pause_writing(self) -> None:
        """More waits to be sent than is to be kept."""
        super().pause_writing()
        self._stuck = self.loop.call_later(LONGEST_SEND_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Most of it was read."""
        self._stop("_stuck")
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self._stop("_head")
        self._stop("_stuck")
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop(self, name: str) -> None:
        """Stop a timer, if it runs."""
        timer: asyncio.TimerHandle | None = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)
