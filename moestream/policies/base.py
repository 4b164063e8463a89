"""What a cache policy is: routed sets go in, what to read and what to drop comes out.

Owns the contract and the counting of bytes. A policy does no I/O and knows no layers: a simulator
or the live residency manager carries its decisions out.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

Decision = tuple[list[int], list[int]]
"""The keys to read because they were asked for and missing, and the keys to drop."""

SEED_TOKENS = 4.0
"""Tokens of its workload that a profile counts for at most.

Measured (docs/profiles.md): more wins a few hits where the profile is right, and loses many where
it is wrong; with this, a wrong one costs next to nothing.
"""

PolicyFactory = Callable[[Sequence[int], int], "Policy"]
"""Makes a policy for keys of these sizes, in bytes, and a budget."""


class Policy(ABC):
    """Decides which of ``len(sizes)`` experts stay within ``budget_bytes``.

    ``used_bytes`` is what is resident. It exceeds the budget only by a routed set that is bigger
    than the budget itself: experts in use are never dropped.
    """

    def __init__(self, sizes: Sequence[int], budget_bytes: int) -> None:
        self.sizes = sizes
        self.budget_bytes = budget_bytes
        self.used_bytes = 0

    @abstractmethod
    def access(self, keys: Sequence[int], token: int) -> Decision:
        """Take one layer's routed set, all at once, and decide what to read and what to drop.

        ``keys`` are distinct and ordered by last use; ``token`` never falls. Everything in
        ``keys`` is resident afterwards, and eviction comes last, so that no set evicts itself.
        An empty set only drops what exceeds the budget.
        """

    def budget_for(self, key: int) -> int:
        """Bytes that a routed set with this key may take: more should not be told at once."""
        return self.budget_bytes

    def lower(self, n_bytes: int, token: int) -> list[int]:
        """Make do with so much less from now on, and say what to drop for it."""
        self.budget_bytes -= n_bytes
        return self.access((), token)[1]

    def seed(self, rates: Sequence[float]) -> list[int]:
        """Begin as if a known workload had just run, not empty; to be called before ``access``.

        ``rates`` are, by key, the uses that one token of that workload makes on average. What is
        resident from now on is returned, the hottest first. Here, in a policy that counts nothing
        which lasts, they have been used once each, the hottest last.
        """
        resident = hottest(rates, self.sizes, self.budget_bytes)
        for key in reversed(resident):
            self.access([key], 0)
        return resident


def hottest(rates: Sequence[float], sizes: Sequence[int], budget_bytes: int) -> list[int]:
    """Keys of the highest rates that fit into a budget together, the hottest first.

    What was never used is left out. Reading a byte of a key saves as much as its rate says,
    whatever its size.
    """
    chosen = []
    for key in sorted(range(len(rates)), key=lambda key: -rates[key]):
        if rates[key] <= 0:
            break
        if sizes[key] <= budget_bytes:
            budget_bytes -= sizes[key]
            chosen.append(key)
    return chosen
