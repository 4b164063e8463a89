"""What a rank but the first has of prompts on disk: keys, values and states of its own layers.

Does what the first one says, under the names that it gives: they tell all ranks' models and files.
Which beginning of a prompt all have, the first finds out (``prompts``).
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from moestream.closing import Closing
from moestream.engine.engine import Engine
from moestream.errors import MoestreamError, RankError
from moestream.layers.cache import Cache
from moestream.prompt_cache import PromptCache, Restoring


class StoredPart(Closing):
    """Stores and restores a part of caches; ``name`` is what a person is told of this rank."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name = engine, name
        self._prompts: PromptCache | None = None
        self._restoring: dict[int, Restoring] = {}
        """By the number of each cache."""
        self._trouble: list[str] = []

    def do(self, body: dict[str, Any], caches: Mapping[int, Cache]) -> None:
        """Do what a message says with one of these caches; put an answer into it."""
        match body["what"]:
            case "open":
                self._open(body)
            case "find" if self._prompts is not None:
                body["blocks"] = self._prompts.lengths(body["names"], body["blocks"])
            case "begin" if self._prompts is not None:
                self._begin(self._prompts, body["number"], body["names"], caches)
            case "step" if body["number"] in self._restoring:
                self._restoring[body["number"]].step()
            case "finish":
                body["tokens"].append(self._finish(body["number"]))
            case "save" if self._prompts is not None:
                self._prompts.put(body["names"], caches[body["number"]])
            case "close":
                self.close()
            case "find" | "begin" | "step" | "save" | "heed":
                pass  # of what this rank has nothing
            case what:
                raise RankError(f"{what!r} cannot be done to prompts; please report it")
        if "trouble" in body:
            while self._trouble:  # the thread that writes may add to it
                body["trouble"].append(self._trouble.pop(0))

    def drop(self, number: int) -> None:
        """Nobody wants a cache any more."""
        self._restoring.pop(number, None)

    def close(self, *, write: bool = True) -> None:
        """Write what waits, if ``write``."""
        if self._prompts is not None:
            self._prompts.close(write=write)

    def _open(self, body: dict[str, Any]) -> None:
        try:
            self._prompts = PromptCache(self._engine, body["limit"], on_trouble=self._is_told)
            body["models"].append(self._prompts.model)
        except MoestreamError as error:
            body["wrong"].append(f"{self._name}: {error}")

    def _is_told(self, message: str) -> None:
        self._trouble.append(f"{self._name}: {message}")

    def _begin(
        self, prompts: PromptCache, number: int, names: list[str], caches: Mapping[int, Cache]
    ) -> None:
        with suppress(MemoryError):  # then nothing is restored, anywhere
            self._restoring[number] = Restoring(prompts.files, caches[number], names, 0)

    def _finish(self, number: int) -> int:
        """Tokens that were restored."""
        restoring = self._restoring.pop(number, None)
        found = None if restoring is None else restoring.finish()
        return 0 if found is None else found.length
