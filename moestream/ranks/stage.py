"""What a rank but the first does with the rows of passes: it runs its layers on them.

Owns the mirrors of the first rank's caches. Where experts are streamed here and a pass is of
several chunks whose rows nobody waits for, all go through a layer before the first enters the next.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from moestream.backends import Array
from moestream.engine.engine import Engine
from moestream.engine.streamed_passes import row_bytes
from moestream.errors import RankError
from moestream.layers.batch import Batch
from moestream.layers.cache import Cache
from moestream.layers.moe import MoE
from moestream.ranks.link import Link
from moestream.ranks.message import Kind, Message
from moestream.ranks.rows import array_of

_MIRRORED = ("truncate", "trim", "unmark", "keep_state")
"""What may be done to a cache in the first rank's name."""


@dataclass(slots=True)
class Leg:
    """The chunks of one pass, run or still to be run."""

    batches: list[Batch] = field(default_factory=list)
    waiting: list[tuple[Message, Batch]] = field(default_factory=list)


class Stage:
    """Runs the layers of an engine's part on what comes along a link."""

    def __init__(self, engine: Engine, link: Link) -> None:
        self._engine, self._link = engine, link
        self._caches: dict[int, Cache] = {}
        self._legs: dict[int, Leg] = {}
        """By the number of the first cache: of a sequence there is one pass at a time."""
        self._busy_s = 0.0
        """Computed since rows were last waited for."""

    def run(self, message: Message) -> None:
        """Take a message's rows on their way.

        Raises:
            MoestreamError: the file or the disk fails.
        """
        body = message.body
        for done in body["done"]:
            self._mirror(*done)
        batch = Batch(
            self._engine.backend,
            [(self._caches[number], tokens) for number, tokens in body["parts"]],
            after=body["after"],
            more=body["more"],
            mark=body["mark"],
        )
        key = body["parts"][0][0]
        if not batch.after:
            self._legs[key] = Leg()  # whatever there was of another was broken off
        leg = self._legs[key]
        leg.batches.append(batch)
        leg.waiting.append((message, batch))
        if self._gathers(body):
            return
        self._run_waiting(leg)
        if not body["more"]:
            del self._legs[key]
            for each in leg.batches:
                each.commit()

    def _gathers(self, body: dict[str, Any]) -> bool:
        """Whether a chunk waits for those behind it, so that experts are read once for all."""
        return self._engine.streaming is not None and body["more"] and not body["wanted"]

    def _run_waiting(self, leg: Leg) -> None:
        engine, waiting = self._engine, leg.waiting
        leg.waiting, started = [], time.perf_counter()
        rows = row_bytes(engine.config, sum(batch.rows for _, batch in waiting))
        long = len(waiting) > 1
        if engine.streaming is not None:
            engine.streaming.before_pass(engine.caches.n_bytes, rows)
        try:
            if engine.streaming is not None and long:
                engine.streaming.residency.begin_long_pass()
            hidden = [array_of(engine.backend, _rows(message)) for message, _ in waiting]
            self._layers(hidden, [batch for _, batch in waiting])
        finally:
            if engine.streaming is not None:
                engine.streaming.after_pass(rows, long=long)
        engine.file.check_intact()
        self._busy_s += time.perf_counter() - started
        for (message, _), out in zip(waiting, hidden, strict=True):
            self._pass_on(message, out)

    def _layers(self, hidden: list[Array], batches: list[Batch]) -> None:
        """Run all chunks through each layer."""
        part = self._engine.config.part
        for number, batch in enumerate(batches):
            batch.more = number < len(batches) - 1  # of those that go through together
        for index in part or ():
            layer = self._engine.model.layers[index]
            for number, batch in enumerate(batches):
                hidden[number] = layer(hidden[number], batch, index)
            if len(batches) > 1 and isinstance(layer.ffn, MoE):
                layer.ffn.end_rows()

    def _pass_on(self, message: Message, out: Array) -> None:
        """To the next rank, or from the last to the first, if it waits for them."""
        rows = self._engine.backend.to_numpy(out)
        if message.body["wanted"]:
            message.body["busy_s"] += self._busy_s
            self._busy_s = 0.0
        if self._link.rank < self._link.size - 1:
            self._link.send(Message(Kind.RUN, message.body, rows))
        elif message.body["wanted"]:
            self._link.send(Message(Kind.ROWS, message.body, rows))

    def _mirror(self, what: str, number: int, *more: Any) -> None:
        """Do to a cache what was done to the first rank's."""
        if what == "new":
            of, length = more
            made = self._engine.caches.new() if of is None else self._caches[of].fork(length)
            self._caches[number] = made
        elif what == "drop":
            self._caches.pop(number)
            self._legs.pop(number, None)
        elif what in _MIRRORED:
            getattr(self._caches[number], what)(*more)
        else:
            raise RankError(f"{what!r} cannot be done to a cache")


def _rows(message: Message) -> Any:
    return message.rows
