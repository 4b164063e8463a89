"""A client's connection; one that does not take what it is sent is ended.

Owns how long that may take. What is sent, and that an ended connection ends its sequences, is
``sse``'s.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

LONGEST_SEND_S = 30.0
"""Within it what waits to be sent must have become little again."""


class Connection(H11Protocol):
    """Ends itself when its client has read too little for too long."""

    _stuck: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """More waits to be sent than is to be kept."""
        super().pause_writing()
        self._stuck = self.loop.call_later(LONGEST_SEND_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Most of it was read."""
        self._forget()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
