"""What a rank but the first does with the rows of passes: it runs its layers on them.

Owns the mirrors of the first rank's caches, which do what those did, when they are told. Chunks
that waited for each other (see ``legs``) go through a layer together.
"""

import time
from typing import Any

from moestream.backends import Array
from moestream.closing import Closing
from moestream.engine.engine import Engine
from moestream.errors import RankError
from moestream.layers.batch import Batch
from moestream.layers.cache import Cache
from moestream.layers.moe import MoE
from moestream.models.blocks import finish
from moestream.ranks.counting import Counted, Heard
from moestream.ranks.legs import Held, Leg, Waiting
from moestream.ranks.link import Link
from moestream.ranks.message import Kind, Message
from moestream.ranks.rows import array_of
from moestream.ranks.stored import StoredPart

_MIRRORED = ("truncate", "trim", "unmark", "keep_state")
"""What may be done to a cache in the first rank's name."""


class Stage(Closing):
    """Runs the layers of an engine's part on what comes along a link."""

    def __init__(self, engine: Engine, link: Link) -> None:
        self._engine, self._link = engine, link
        self._caches: dict[int, Cache] = {}
        self._held = Held(engine)
        self._legs: dict[int, Leg] = {}
        """By the number of each cache: of a sequence there is one pass at a time."""
        self._to_tell: list[list[Any]] = []
        """What was done to caches, for the next rank to hear before its next rows."""
        self._stored = StoredPart(engine, link.name(link.rank))
        self._counted: Counted | None = None
        self._busy_s = 0.0
        """Computed since rows were last waited for."""

    def close(self, *, write: bool = True) -> None:
        """Have written what is being written of prompts, if ``write``."""
        self._stored.close(write=write)

    def do(self, message: Message) -> None:
        """Take a message's rows on their way, or count, or store, as it says.

        Raises:
            MoestreamError: the file or the disk fails.
        """
        for done in message.body.get("done", ()):
            self._mirror(done)
        if message.kind is Kind.RUN:
            self._run(message)
        elif message.kind is Kind.COUNT:
            self._counted = Counted.of(self._engine, message.body["half_life"])
            self._link.send(message)
        elif message.kind is Kind.COUNTS:
            self._tell_counts(message)
        else:
            self._store(message)
        if self._is_last:
            self._to_tell.clear()

    @property
    def _is_last(self) -> bool:
        return self._link.rank == self._link.size - 1

    def _store(self, message: Message) -> None:
        """All ranks read at the same time what they have; answers wait for that."""
        answers = "n" in message.body
        if not answers and not self._is_last:
            self._pass_on_told(message)
        self._stored.do(message.body, self._caches)
        if answers:
            self._pass_on_told(message)

    def _tell_counts(self, message: Message) -> None:
        for leg in dict.fromkeys(self._legs.values()):
            self._run_waiting(leg)
        if self._counted is not None:
            message.body["found"].append(self._counted.told())
        self._pass_on_told(message)

    def _run(self, message: Message) -> None:
        body = message.body
        leg = self._leg(tuple(number for number, *_ in body["parts"]))
        if not body["after"]:
            leg.drop_unsure()
        batch = Batch(
            self._engine.backend,
            [(self._caches[number], tokens) for number, tokens, _ in body["parts"]],
            on_route=Heard() if self._counted is not None and body["counts"] else None,
            after=self._after(leg, body["parts"]),
            more=body["more"],
            mark=body["mark"],
        )
        runs = leg.add(message, batch)
        self._make_room(leg)
        leg.hold()
        if runs:
            self._run_waiting(leg)

    def _make_room(self, leg: Leg) -> None:
        """Run what waits of other sequences until what waits of all has room together."""
        while self._held.rows + leg.new_rows > self._held.most_rows:
            others = (each for each in self._legs.values() if each.waiting and each is not leg)
            most = max(others, key=lambda each: each.waiting_rows, default=None)
            if most is None:
                return
            self._run_waiting(most)

    def _leg(self, numbers: tuple[int, ...]) -> Leg:
        """The leg of just these caches; what there is of others with any of them is settled."""
        leg = self._legs.get(numbers[0])
        if leg is None or leg.numbers != numbers:
            for number in numbers:
                self._settle(number)
            leg = Leg(self._held, numbers)
            self._legs |= dict.fromkeys(numbers, leg)
        return leg

    def _after(self, leg: Leg, parts: list[tuple[int, int, int]]) -> int:
        """Tokens between what the caches hold here and a message's rows.

        Raises:
            RankError: the first rank's cache holds others, though it said nothing of it.
        """
        for number, _, start in parts:
            cache = self._caches[number]
            ahead = cache.length + leg.ahead - start
            if ahead > 0 and cache.can_rewind and not leg.ahead:
                cache.truncate(start)  # a pass failed there, after it was run here
            elif ahead:
                raise RankError(
                    f"its rows begin at position {start}, and {start + ahead} are known here; "
                    "please report it"
                )
        return leg.ahead

    def _settle(self, number: int) -> None:
        """Do what is still to be done to a cache, before anything else is."""
        if (leg := self._legs.get(number)) is not None:
            leg.drop_unsure()
            self._run_waiting(leg)

    def _run_waiting(self, leg: Leg) -> None:
        if waiting := leg.take():
            self._run_chunks(leg, waiting)
        whole = leg.commit()
        if self._counted is not None:
            self._counted.add(whole)
        self._to_tell += leg.tell()

    def _run_chunks(self, leg: Leg, waiting: list[Waiting]) -> None:
        """The room for rows is given back when the last of them has gone: to send may take long."""
        try:
            hidden = self._computed(waiting)
            for place, (message, _) in enumerate(waiting):
                self._to_tell += leg.tell(place)
                self._pass_on(message, hidden.pop(0))
        finally:
            leg.release(long=len(waiting) > 1)

    def _computed(self, waiting: list[Waiting]) -> list[Array]:
        """The rows of all chunks after the layers; the messages have theirs no longer."""
        engine, batches = self._engine, [batch for _, batch in waiting]
        streaming, started = engine.streaming, time.perf_counter()
        prefetcher = None if streaming is None else streaming.prefetcher
        if prefetcher is not None:
            prefetcher.before_pass(sum(batch.rows for batch in batches))
        try:
            if streaming is not None and len(batches) > 1:
                streaming.residency.begin_long_pass()
            hidden = [array_of(engine.backend, message.take_rows()) for message, _ in waiting]
            self._layers(hidden, batches)
        finally:
            if prefetcher is not None:
                prefetcher.after_pass()
        engine.file.check_intact()
        self._busy_s += time.perf_counter() - started
        return hidden

    def _layers(self, hidden: list[Array], batches: list[Batch]) -> None:
        """Run all chunks through each layer."""
        part = self._engine.config.part
        for number, batch in enumerate(batches):
            batch.more = number < len(batches) - 1  # of those that go through together
        for index in part or ():
            layer = self._engine.model.layers[index]
            begun = [layer.halves(*each, index) for each in zip(hidden, batches, strict=True)]
            hidden.clear()  # a row waits once
            for halves in begun:
                next(halves)
            hidden += map(finish, begun)
            if len(batches) > 1 and isinstance(layer.ffn, MoE):
                layer.ffn.end_rows()

    def _pass_on(self, message: Message, out: Array) -> None:
        """To the next rank, or from the last to the first, if it waits for them."""
        rows = self._engine.backend.to_numpy(out)
        if message.body["wanted"]:
            message.body["busy_s"] += self._busy_s
            self._busy_s = 0.0
        if not self._is_last:
            self._pass_on_told(Message(Kind.RUN, message.body, rows))
        elif message.body["wanted"]:
            self._link.send(Message(Kind.ROWS, message.body, rows))

    def _pass_on_told(self, message: Message) -> None:
        message.body["done"], self._to_tell = self._to_tell, []
        self._link.send(message)

    def _mirror(self, done: list[Any]) -> None:
        """Do to a cache what was done to the first rank's, once what came before it is done."""
        what, number, *more = done
        if what == "commit":
            self._commit(number, done)
            return
        if what == "new":
            self._new(number, *more)
        elif what == "drop":
            self._caches.pop(number)
            self._stored.drop(number)
            if (leg := self._legs.pop(number, None)) is not None:
                leg.drop_all()
        elif what in _MIRRORED:
            self._settle(number)
            getattr(self._caches[number], what)(*more)
        else:
            raise RankError(f"{what!r} cannot be done to a cache")
        self._to_tell.append(done)

    def _new(self, number: int, of: int | None, length: int) -> None:
        if of is None:
            self._caches[number] = self._engine.caches.new()
            return
        if (leg := self._legs.get(of)) is not None:
            self._run_waiting(leg)  # some of its pass may be under way, and goes on
        self._caches[number] = self._caches[of].fork(length)

    def _commit(self, number: int, done: list[Any]) -> None:
        leg = self._legs[number]
        leg.confirm(done)
        if not leg.waiting:
            self._run_waiting(leg)
