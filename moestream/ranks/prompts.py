"""Prompts on disk where machines share a model: each stores and restores what its layers keep.

Owns which beginning of a prompt all have, the least of all: what one lacks, or what is damaged on
one, is used by none. What each does is ``stored``'s, in the order in which rows come to it.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any

from moestream.backends import BLOCK_POSITIONS
from moestream.errors import RankError, StorageError
from moestream.layers.cache import Cache
from moestream.prompt_cache import BlockFiles, PromptCache, Restoring
from moestream.ranks.coming import Question
from moestream.ranks.far import MirroredCache
from moestream.ranks.message import Kind
from moestream.ranks.shared_engine import SharedEngine

_LEAVE_S = 2.0
"""At the end, for how long others that compute are waited for: what they have not heard of is not
stored."""


class SharedPrompts(PromptCache):
    """The stored prompts of an engine whose later layers other ranks have."""

    def __init__(
        self,
        engine: SharedEngine,
        limit_bytes: int | None = None,
        *,
        on_trouble: Callable[[str], None] = lambda message: None,
    ) -> None:
        """As ``PromptCache``; the limit is of each machine.

        Raises:
            UnsupportedModelError, StorageError: see ``PromptCache``, of any rank.
            RankError: one has failed.
        """
        super().__init__(engine, limit_bytes, on_trouble=on_trouble)
        self._shared = engine
        self._unsure = False
        """Whether others may not have stored yet what they were told to."""
        try:
            found = self.wait(self.ask("open", limit=limit_bytes, models=[self.model], wrong=[]))
        except BaseException:
            super().close()
            raise
        if found["wrong"]:
            super().close()
            raise StorageError("; ".join(found["wrong"]))
        # What lies on one machine was computed from what all before it computed.
        self.model = sha256("".join(found["models"]).encode()).hexdigest()[:32]

    def put(self, names: list[str], cache: Cache) -> None:
        """Have each write its blocks."""
        super().put(names, cache)
        if isinstance(cache, MirroredCache):
            self._unsure = True
            with suppress(RankError):  # which the next pass tells of
                self.tell("save", number=cache.number, names=names)

    def close(self, *, write: bool = True) -> None:
        """Write what waits, here and there, and end; where a rank has failed, end at once."""
        unsure, self._unsure = self._unsure, False
        try:
            heard = self.ask("heed") if unsure and write else None
            super().close(write=write)
            if heard is not None and self.wait(heard, _LEAVE_S) is not None:
                self.wait(self.ask("close"))
        except RankError:  # who closes the engine hears of it
            super().close(write=False)

    def tell(self, what: str, **body: Any) -> None:
        """Have the others do something. Raises RankError: one has failed."""
        self._shared.tell(Kind.PROMPTS, what=what, **body)

    def ask(self, what: str, **body: Any) -> Question:
        """The same, of something that they answer. Raises RankError: one has failed."""
        return self._shared.ask(Kind.PROMPTS, what=what, trouble=[], **body)

    def hear(self, question: Question) -> dict[str, Any] | None:
        """The answer, once it has come. Raises RankError: one has failed."""
        answer = self._shared.hear(question)
        for trouble in answer["trouble"] if answer is not None else ():
            self._on_trouble(trouble)
        return answer

    def wait(self, question: Question, most_s: float = float("inf")) -> Any:
        """Wait for an answer; None where it has not come in so many seconds.

        Raises:
            RankError: a rank has failed.
        """
        until = time.monotonic() + most_s
        while (answer := self.hear(question)) is None and time.monotonic() < until:
            pass
        return answer

    def _restoring(self, names: list[str], lengths: list[int], more_than: int) -> Restoring:
        return SharedRestoring(
            self, self.files, self._shared.caches.new(), names, lengths, more_than
        )


class SharedRestoring(Restoring):
    """Fills a cache and its mirrors, block by block."""

    def __init__(
        self,
        prompts: SharedPrompts,
        files: BlockFiles,
        cache: Cache,
        names: list[str],
        lengths: list[int],
        more_than: int,
    ) -> None:
        """Ask which of ``lengths``, in blocks, all have."""
        super().__init__(files, cache, names, more_than)
        assert isinstance(cache, MirroredCache)
        self._prompts, self._number = prompts, cache.number
        self._found: Question | None = prompts.ask("find", names=names, blocks=lengths)
        self._end: Question | None = None
        self._elsewhere: list[int] = []

    def step(self) -> bool:
        """Read a block, here and there, or wait a moment for others.

        Raises:
            OSError: the disk gives no more.
            RankError: a rank has failed.
        """
        if self._found is not None:
            return self._agree(self._found)
        if self._end is None:
            self._prompts.tell("step", number=self._number)
            if not super().step():
                self._end = self._prompts.ask("finish", number=self._number, tokens=[])
            return True
        answer = self._prompts.hear(self._end)
        self._elsewhere = [] if answer is None else answer["tokens"]
        return answer is None

    def finish(self) -> Cache | None:
        """The cache, of the least that any rank has restored; None if that is little.

        Raises:
            OSError: the disk gives no more.
        """
        cache = super().finish()
        if cache is None or not self._elsewhere:
            return None
        least = min(self._elsewhere)
        if least != cache.length or max(self._elsewhere) != least:
            least = min(least, cache.length)
            if not cache.can_rewind or least <= self._more_than:
                return None
            cache.truncate(least)
        return cache

    def _agree(self, found: Question) -> bool:
        answer = self._prompts.hear(found)
        if answer is None:
            return True
        self._found = None
        self._names = self._names[: max(answer["blocks"], default=0)]
        if len(self._names) * BLOCK_POSITIONS <= self._more_than:
            self._names = []
            return False
        self._prompts.tell("begin", number=self._number, names=self._names)
        return True
