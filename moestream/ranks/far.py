"""The layers that other ranks have, as the first one runs them; and its caches, which they mirror.

A pass runs through the first rank's own layers, then through one that sends its rows off, and one
that waits for what comes of them (``coming``). What is done to a cache here is done to its mirror
there, in the same order: it is told with the next rows. So is that a pass has run to its end, as
one whose rows are there may still be broken off here.
"""

import weakref
from collections import deque
from collections.abc import Mapping
from typing import Any

from moestream.backends import Array, Backend, KVTypes
from moestream.engine.timeline import BrokenOff
from moestream.layers.batch import Batch
from moestream.layers.cache import Cache, Caches, State
from moestream.models.blocks import MixerLayer
from moestream.ranks.coming import Coming
from moestream.ranks.link import Link
from moestream.ranks.message import Kind, Message


class Log:
    """What was done to caches and has not been told yet."""

    def __init__(self) -> None:
        self._done: deque[list[Any]] = deque()
        self._caches = 0

    def new(self, of: int | None, length: int) -> int:
        """A cache was made, with the first positions of another; return its number."""
        self._caches += 1
        self.add("new", self._caches, of, length)
        return self._caches

    def add(self, *done: Any) -> None:
        """Something was done to one; from any thread, as one may be let go of in any."""
        self._done.append([*done])

    def take(self) -> list[list[Any]]:
        """All of it, once."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def put_back(self, done: list[list[Any]]) -> None:
        """It was taken and not told."""
        self._done.extendleft(reversed(done))


class MirroredCaches(Caches):
    """Makes caches that others mirror."""

    def __init__(self, caches: Caches, kv_types: KVTypes, log: Log) -> None:
        super().__init__(caches.backend, caches.shapes, capacity=caches.capacity, kv_types=kv_types)
        self.log = log

    def new(self) -> "MirroredCache":
        """Make an empty one."""
        made = MirroredCache(self)
        self.add(made)
        return made


class MirroredCache(Cache):
    """A cache that tells what is done to it."""

    def __init__(
        self, caches: MirroredCaches, of: "MirroredCache | None" = None, length: int = 0
    ) -> None:
        super().__init__(caches, of, length)
        self._log = caches.log
        self.number: int = self._log.new(None if of is None else of.number, length)
        weakref.finalize(self, self._log.add, "drop", self.number)

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on."""
        super().truncate(length)
        self._log.add("truncate", self.number, length)

    def trim(self) -> None:
        """Let go of room that was reserved and is not used."""
        super().trim()
        self._log.add("trim", self.number)

    def commit(self, tokens: int, states: Mapping[int, dict[int, State]]) -> None:
        """A pass has run to its end."""
        super().commit(tokens, states)
        self._log.add("commit", self.number)

    def unmark(self, length: int) -> None:
        """It need not come back there any more."""
        super().unmark(length)
        self._log.add("unmark", self.number, length)

    def keep_state(self) -> None:
        """Keep a snapshot of now."""
        super().keep_state()
        self._log.add("keep_state", self.number)


class FarLayers(MixerLayer):
    """All layers of other ranks, as one that sends rows to them."""

    def __init__(
        self, link: Link, backend: Backend, log: Log, coming: Coming, *, recurrent: bool
    ) -> None:
        """``coming`` hears what is to come back; ``recurrent``: whether any of them is."""
        self._link, self._backend, self._log = link, backend, log
        self._coming, self._recurrent = coming, recurrent
        self._sent = 0

    def __call__(self, x: Array, batch: Batch, index: int) -> Array:
        """Send the residual stream on, (T, E): what comes of it is ``coming``'s.

        Of a pass whose rows nobody asks for nothing comes back.

        Raises:
            BrokenOff: the pass's ``stop`` said so.
            RankError: a rank has failed.
        """
        if self._recurrent:  # so that lengths to go back to are kept as the others keep them
            batch.each(index, lambda _, rows: rows, self._backend.zeros((batch.rows, 1)))
        self._sent += 1
        message = Message(Kind.RUN, self._told(batch), self._backend.to_numpy(x))
        try:
            self._link.send(message, batch.stop)
        except BrokenOff:
            self._log.put_back(message.body["done"])
            raise
        if batch.wanted:
            self._coming.expect(self._sent, batch)
        return x

    def _told(self, batch: Batch) -> dict[str, Any]:
        return {
            "n": self._sent,
            "done": self._log.take(),
            "parts": [
                (part.cache.number, part.rows.stop - part.rows.start, part.start)
                for part in batch.parts
                if isinstance(part.cache, MirroredCache)
            ],
            "after": batch.after,
            "more": batch.more,
            "mark": batch.mark,
            "wanted": batch.wanted,
            "busy_s": 0.0,
        }
