"""One policy a layer, each with a budget of its own."""

from collections.abc import Sequence

from moestream.experts.policies.base import Decision, Policy


class Layered(Policy):
    """Asks every layer's own policy: a layer can drop its own experts alone.

    ``parts`` are the policies by layer, for keys counted from 0. Routed sets must be of one layer
    each, which is what makes the layers independent. A layer's set is held even where its share of
    the budget is smaller, so that together they may exceed the budget.
    """

    def __init__(self, parts: Sequence[Policy]) -> None:
        super().__init__(
            [size for part in parts for size in part.sizes],
            sum(part.budget_bytes for part in parts),
        )
        self._parts = parts
        self._num_experts = len(self.sizes) // len(parts)

    def access(self, keys: Sequence[int], token: int) -> Decision:
        """See ``Policy.access``."""
        layer = keys[0] // self._num_experts
        base, part = layer * self._num_experts, self._parts[layer]
        before = part.used_bytes
        missing, evicted = part.access([key - base for key in keys], token)
        self.used_bytes += part.used_bytes - before
        return [key + base for key in missing], [key + base for key in evicted]
