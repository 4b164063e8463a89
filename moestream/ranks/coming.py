"""What comes back from other ranks: the layer that waits for it, and what the waiting took.

Rows come in the order in which they were sent. Those of another pass that is under way are kept for
it, those of one that was broken off are dropped. So are answers that come between them.
"""

import time
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from moestream.backends import Array, Backend
from moestream.layers.batch import Batch
from moestream.models.blocks import MixerLayer
from moestream.ranks.link import Link
from moestream.ranks.message import Kind, Message, Rows
from moestream.ranks.rows import array_of


@dataclass(slots=True)
class Away:
    """Where the time went while rows were away."""

    waits: int = 0
    """How often they were waited for."""
    waited_s: float = 0.0
    busy_s: float = 0.0
    """Of it, what the other ranks computed; the rest is hops."""

    def add(self, waited_s: float, busy_s: float) -> None:
        """Rows came back."""
        self.waits += 1
        self.waited_s += waited_s
        self.busy_s += min(busy_s, waited_s)


class Question:
    """Something that the others were asked."""

    __slots__ = ("__weakref__", "answer")

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = None


class Coming(MixerLayer):
    """Gives the rows that come of those sent off; in the place of a layer, behind all others."""

    waits = True

    def __init__(self, link: Link, backend: Backend) -> None:
        self._link, self._backend = link, backend
        self._awaited: WeakValueDictionary[int, Batch] = WeakValueDictionary()
        """By the number of what was sent; who broke a pass off lets go of its batches."""
        self._came: WeakKeyDictionary[Batch, Rows] = WeakKeyDictionary()
        self._questions: WeakValueDictionary[int, Question] = WeakValueDictionary()
        """By their numbers; who lets go of one wants no answer."""
        self._asked = 0
        self._busy_s = 0.0
        self.away = Away()

    def expect(self, number: int, batch: Batch) -> None:
        """A batch's rows were sent off under a number."""
        self._awaited[number] = batch

    def question(self) -> tuple[int, Question]:
        """What is to be asked next, and the number of its answer."""
        self._asked += 1
        question = self._questions[self._asked] = Question()
        return self._asked, question

    def hear(self, question: Question) -> dict[str, Any] | None:
        """What was answered, once it has come; waits for a moment.

        Raises:
            RankError: a rank has failed.
        """
        if question.answer is None:
            self._take(self._link.poll(Kind.ROWS, Kind.PROMPTS))
        return question.answer

    def __call__(self, x: Array, batch: Batch, index: int) -> Array:
        """The residual stream after all layers: (T, E) -> (T, E); nothing of what nobody asks for.

        Raises:
            BrokenOff: the pass's ``stop`` said so.
            RankError: a rank has failed.
        """
        return array_of(self._backend, self._rows(batch)) if batch.wanted else x

    def _rows(self, batch: Batch) -> Rows:
        started = time.perf_counter()
        while (rows := self._came.pop(batch, None)) is None:
            self._take(self._link.receive(Kind.ROWS, Kind.PROMPTS, stop=batch.stop))
        self.away.add(time.perf_counter() - started, self._busy_s)
        self._busy_s = 0.0
        return rows

    def _take(self, message: Message | None) -> None:
        """Keep what came for who waits for it."""
        if message is None:
            return
        body = message.body
        if message.kind is Kind.PROMPTS:
            if (question := self._questions.pop(body.get("n", 0), None)) is not None:
                question.answer = body
            return
        self._busy_s += body["busy_s"]
        whose = self._awaited.pop(body["n"], None)
        if whose is not None and message.rows is not None:
            self._came[whose] = message.rows
