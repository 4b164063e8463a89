"""ARC: the adaptive replacement cache, for routed sets and experts of any size."""

from collections import OrderedDict
from collections.abc import Sequence

from moestream.policies.base import Decision, Policy


class _List:
    """Keys in order of use, the least recent first, and their bytes."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self.keys: OrderedDict[int, None] = OrderedDict()
        self.n_bytes = 0

    def add(self, key: int) -> None:
        self.keys[key] = None
        self.n_bytes += self._sizes[key]

    def remove(self, key: int) -> None:
        del self.keys[key]
        self.n_bytes -= self._sizes[key]

    def oldest(self, in_use: set[int]) -> int | None:
        return next((key for key in self.keys if key not in in_use), None)


class ARC(Policy):
    """Balances a list of what was used once against one of what was used again.

    Each list has a ghost, the keys that it lost; a use of a ghost moves the target share of the
    list of once-used experts. As a set is looked up whole, all of its keys are noted before any is
    dropped; where one list has nothing that may go, the other gives.

    Source: Megiddo and Modha, ARC: A Self-Tuning, Low Overhead Replacement Cache, FAST 2003.
    """

    def __init__(self, sizes: Sequence[int], budget_bytes: int) -> None:
        super().__init__(sizes, budget_bytes)
        self._once, self._again = _List(sizes), _List(sizes)
        self._once_ghost, self._again_ghost = _List(sizes), _List(sizes)
        self._target_bytes = 0.0  # of _once

    def access(self, keys: Sequence[int], token: int) -> Decision:
        """See ``Policy.access``."""
        missing = []
        for key in keys:
            if key in self._once.keys:
                self._once.remove(key)
            elif key in self._again.keys:
                self._again.remove(key)
            else:
                missing.append(key)
                self.used_bytes += self.sizes[key]
                if not self._adapt(key):
                    self._once.add(key)
                    continue
            self._again.add(key)
        evicted = self._evict(set(keys))
        self._trim_ghosts()
        return missing, evicted

    def _adapt(self, key: int) -> bool:
        """Move the target when ``key`` is a ghost; say whether it was."""
        once, again, size = self._once_ghost, self._again_ghost, self.sizes[key]
        if key in once.keys:
            step = size * max(1.0, again.n_bytes / once.n_bytes)
            self._target_bytes = min(float(self.budget_bytes), self._target_bytes + step)
            once.remove(key)
        elif key in again.keys:
            step = size * max(1.0, once.n_bytes / again.n_bytes)
            self._target_bytes = max(0.0, self._target_bytes - step)
            again.remove(key)
        else:
            return False
        return True

    def _evict(self, in_use: set[int]) -> list[int]:
        evicted: list[int] = []
        lists = [(self._once, self._once_ghost), (self._again, self._again_ghost)]
        while self.used_bytes > self.budget_bytes:
            first = 0 if self._once.n_bytes > self._target_bytes else 1
            for members, ghost in (lists[first], lists[1 - first]):
                key = members.oldest(in_use)
                if key is not None:
                    members.remove(key)
                    ghost.add(key)
                    self.used_bytes -= self.sizes[key]
                    evicted.append(key)
                    break
            else:
                break
        return evicted

    def _trim_ghosts(self) -> None:
        """Remember no more once-used bytes than the budget, and twice the budget in all."""
        once, again = self._once_ghost, self._again_ghost
        while once.keys and self._once.n_bytes + once.n_bytes > self.budget_bytes:
            once.remove(next(iter(once.keys)))
        while again.keys and (
            self.used_bytes + once.n_bytes + again.n_bytes > 2 * self.budget_bytes
        ):
            again.remove(next(iter(again.keys)))
