"""What a cache policy is: routed sets go in, what to read and what to drop comes out.

Owns the contract and the counting of bytes. A policy does no I/O and knows no layers: a simulator
or the live residency manager carries its decisions out.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

Decision = tuple[list[int], list[int]]
"""The keys to read because they were asked for and missing, and the keys to drop."""

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
