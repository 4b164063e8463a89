"""What was read once and may be read again: sequences that ended, with their caches.

Owns which are kept, and which go when their memory is wanted. Sequences that begin alike share
blocks of the KV cache, so what is told here as a sequence's is often little more than its end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from moestream.engine.tokens import Tokens, common_length
from moestream.layers.cache import Cache


@dataclass(eq=False, slots=True)
class Kept:
    """Tokens, and a cache that holds them."""

    tokens: Tokens
    cache: Cache


class Prefixes:
    """Kept sequences, the least recently used first."""

    def __init__(self) -> None:
        self._kept: list[Kept] = []
        self.hits = 0
        self.hit_tokens = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, tokens: Sequence[int], cache: Cache) -> None:
        """Keep a sequence in the place of those that it begins with."""
        if not cache.length:
            return
        new = Kept(np.asarray(tokens[: cache.length], np.int32), cache)
        self._kept = [old for old in self._kept if not _begins(new.tokens, old)]
        self._kept.append(new)

    def take(
        self, prompt: Sequence[int], running: Iterable[tuple[Sequence[int], Cache]]
    ) -> Cache | None:
        """Make a cache of the longest beginning of ``prompt`` that any sequence has, kept or not.

        At least one token is left to be run: the logits after it are not in a cache. None if
        nothing begins so.
        """
        wanted = np.asarray(prompt[:-1], np.int32)
        others = [Kept(np.asarray(t[: c.length], np.int32), c) for t, c in running if c.length]
        found, length = None, 0
        for each in (*self._kept, *others):
            common = each.cache.nearest(common_length(each.tokens, wanted))
            if common > length:
                found, length = each, common
        if found is None:
            return None
        self.hits += 1
        self.hit_tokens += length
        if found in self._kept:
            self._kept.remove(found)
            self._kept.append(found)
        return found.cache.fork(length)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def drop_oldest(self) -> bool:
        """Forget the least recently used; return whether there was one."""
        if self._kept:
            del self._kept[0]
            return True
        return False


def _begins(tokens: Tokens, old: Kept) -> bool:
    return len(old.tokens) <= len(tokens) and common_length(old.tokens, tokens) == len(old.tokens)
