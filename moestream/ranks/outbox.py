"""What waits to be sent to the next rank: words that are urgent first, rows as it takes them.

Owns how many bytes of rows may be on their way: a rank that is slower than the one before it holds
no more of them. Only rows are held back, and they go from the first rank to the last and no
further, so that no rank waits for one that waits for it.
"""

import threading
from collections import deque

from moestream.ranks.message import Kind, Message

WINDOW_BYTES = 8 << 20
"""Rows that the next rank has not taken up; one message more may be sent while they are fewer."""


class Outbox:
    """Filled by any thread, emptied by the one that sends."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._urgent: deque[Message] = deque()
        self._waiting: deque[Message] = deque()
        self._away_bytes = 0
        self._sending = False

    def put(self, message: Message, timeout_s: float) -> bool:
        """Have a message sent after the others; False where it is rows and there is no room yet."""
        with self._changed:
            if message.kind is Kind.RUN:
                if not self._changed.wait_for(self._has_room, timeout_s):
                    return False
                self._away_bytes += message.row_bytes
            self._waiting.append(message)
            self._changed.notify_all()
        return True

    def put_first(self, message: Message) -> None:
        """Have a message sent before those that wait; after the end, nothing is."""
        with self._changed:
            if message.kind is Kind.END:
                self._waiting.clear()
            self._urgent.append(message)
            self._changed.notify_all()

    def taken(self, n_bytes: int) -> None:
        """The next rank has taken up so many bytes of rows."""
        with self._changed:
            self._away_bytes -= n_bytes
            self._changed.notify_all()

    def get(self, timeout_s: float) -> Message | None:
        """The next to be sent, until ``sent`` is called; None if there is none in this time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._urgent or self._waiting, timeout_s):
                return None
            self._sending = True
            return (self._urgent or self._waiting).popleft()

    def sent(self) -> None:
        """What ``get`` gave is sent."""
        with self._changed:
            self._sending = False
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is sent, for a while; return whether it is."""

        def is_empty() -> bool:
            return not (self._urgent or self._waiting or self._sending)

        with self._changed:
            return self._changed.wait_for(is_empty, timeout_s)

    def _has_room(self) -> bool:
        return self._away_bytes < WINDOW_BYTES
