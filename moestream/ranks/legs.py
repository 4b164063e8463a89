"""The chunks of a sequence that a rank has and the first rank has not all committed, or that wait.

Owns their order, what becomes of those whose pass was broken off, and the memory that those which
wait take, of all sequences together. How they are run is ``stage``'s.
"""

from typing import Any

from moestream.engine.engine import Engine
from moestream.engine.streamed_passes import pass_tokens, row_bytes
from moestream.layers.batch import CHUNK_TOKENS, Batch
from moestream.ranks.message import Message

Waiting = tuple[Message, Batch]


class Held:
    """The rows that wait, of all legs, and the memory that experts gave for them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.rows = 0
        self._n_bytes = 0

    @property
    def most_rows(self) -> int:
        """As many as a long pass of one machine has; none where no experts are streamed."""
        engine = self._engine
        if engine.streaming is None:
            return 0
        return pass_tokens(engine.streaming, engine.config, CHUNK_TOKENS, in_order=False)

    def change(self, rows: int, *, long: bool = False) -> None:
        """So many more wait, or fewer, after a pass of several chunks if ``long``.

        Raises:
            ModelFormatError: the file was changed.
        """
        self.rows += rows
        before, self._n_bytes = self._n_bytes, row_bytes(self._engine.config, self.rows)
        if (streaming := self._engine.streaming) is None:
            return
        if self._n_bytes > before or rows > 0:
            streaming.before_pass(self._engine.caches.n_bytes, self._n_bytes - before)
        else:
            streaming.after_pass(before - self._n_bytes, long=long)


class Leg:
    """Chunks of one sequence, or one of several sequences, in their order.

    Where experts are streamed here, chunks whose rows nobody asks for wait for those behind them,
    also of later passes, so that each expert is read once for all; the memory for their rows is
    the experts', as in a long pass of one machine.
    """

    def __init__(self, held: Held, numbers: tuple[int, ...]) -> None:
        """``numbers`` are those of the sequences' caches."""
        self._held = held
        self.numbers = numbers
        self._batches: list[Batch] = []
        self._sure = 0
        """How many of them the first rank has committed."""
        self._held_rows = 0
        self.waiting: list[Waiting] = []
        """The last of them, which are not run yet."""
        self._told: list[tuple[int, list[Any]]] = []
        """What later ranks are to hear, each behind the rows of so many of those that wait."""

    @property
    def ahead(self) -> int:
        """Tokens of the one sequence that are not committed here."""
        return sum(batch.rows for batch in self._batches)

    def add(self, message: Message, batch: Batch) -> bool:
        """A chunk has come; return whether it and those before it are to be run now."""
        self._batches.append(batch)
        self.waiting.append((message, batch))
        if message.body["wanted"] or len(self.numbers) > 1:
            return True
        return self.waiting_rows + batch.rows > self._held.most_rows

    @property
    def waiting_rows(self) -> int:
        """Of all chunks that wait."""
        return sum(batch.rows for _, batch in self.waiting)

    @property
    def new_rows(self) -> int:
        """Of those, for which there is no room yet."""
        return self.waiting_rows - self._held_rows

    def hold(self) -> None:
        """Make room for the rows of those that wait.

        Raises:
            ModelFormatError: the file was changed.
        """
        rows, before = self.waiting_rows, self._held_rows
        self._held_rows = rows
        self._held.change(rows - before)

    def take(self) -> list[Waiting]:
        """Those that wait, which are run now; ``release`` comes after it."""
        taken, self.waiting = self.waiting, []
        return taken

    def release(self, *, long: bool = False) -> None:
        """The rows are gone, after a pass of several chunks if ``long``."""
        rows, self._held_rows = self._held_rows, 0
        self._held.change(-rows, long=long)

    def confirm(self, done: list[Any]) -> None:
        """The first rank has committed all that has come; so is done here once all is run.

        Later ranks are to hear of it as ``done``.
        """
        self._sure = len(self._batches)
        self._told.append((len(self.waiting), done))

    def tell(self, rows_of: int | None = None) -> list[list[Any]]:
        """What is to be told once those ranks have so many chunks of what waited; None for all."""
        due = [done for place, done in self._told if rows_of is None or place <= rows_of]
        del self._told[: len(due)]
        return due

    def commit(self) -> list[Batch]:
        """Do to the caches what the first rank has done; return the chunks that are whole now."""
        sure, self._batches = self._batches[: self._sure], self._batches[self._sure :]
        self._sure = 0
        for batch in sure:
            batch.commit()
        return sure

    def drop_unsure(self) -> None:
        """The pass that was under way is broken off."""
        self._batches = self._batches[: self._sure]
        kept = [each for each in self.waiting if each[1] in self._batches]
        if len(kept) < len(self.waiting):
            self.waiting = kept
            self.release()
            if kept:
                self.hold()

    def drop_all(self) -> None:
        """Nobody asks for any of it."""
        if self.waiting:
            self.waiting = []
            self.release()
