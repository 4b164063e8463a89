"""One policy a layer, each with a budget of its own, which may move between layers."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moestream.choices import LayerBudget
from moestream.policies.base import Decision, Policy, PolicyFactory
from moestream.policies.shares import balance_layers

_PERIOD = 8
"""Tokens after which the shares are looked at again."""
_FADING = 0.95
"""What a use counts for when they are, against one a period later."""


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
        if not keys:
            return [], [
                key for layer in range(len(self._parts)) for key in self._shed(layer, token)
            ]
        return self._access(keys[0] // self._num_experts, keys, token)

    def _access(self, layer: int, keys: Sequence[int], token: int) -> Decision:
        base, part = layer * self._num_experts, self._parts[layer]
        before = part.used_bytes
        missing, evicted = part.access([key - base for key in keys], token)
        if not missing and not evicted:
            return missing, evicted
        self.used_bytes += part.used_bytes - before
        return [key + base for key in missing], [key + base for key in evicted]

    def _shed(self, layer: int, token: int) -> list[int]:
        return self._access(layer, (), token)[1]

    def seed(self, rates: Sequence[float]) -> list[int]:
        """See ``Policy.seed``: each layer begins with its own hottest."""
        n, keys = self._num_experts, []
        for base, part in zip(range(0, len(self.sizes), n), self._parts, strict=True):
            keys += [base + key for key in part.seed(rates[base : base + n])]
        self.used_bytes = sum(part.used_bytes for part in self._parts)
        return sorted(keys, key=lambda key: -rates[key])

    def budget_for(self, key: int) -> int:
        """See ``Policy.budget_for``: the layer's share."""
        return self._parts[key // self._num_experts].budget_bytes

    def lower(self, n_bytes: int, token: int) -> list[int]:
        """See ``Policy.lower``: each layer gives the same part of its share."""
        kept = self.budget_bytes - n_bytes
        for part in self._parts:
            part.budget_bytes = part.budget_bytes * kept // max(self.budget_bytes, 1)
        self.budget_bytes = kept
        return self.access((), token)[1]


class Adaptive(Layered):
    """Moves budget to the layers where it hits most, as far as their use until now tells.

    What room for n experts is worth to a layer is taken to be the uses of its n most used ones,
    which fade with time. A layer's share grows only once another has dropped what it gives up, so
    that the budget holds at any time. No share falls below ``least`` experts.

    Source: MoEpic, arXiv 2509.08342, for moving budget so; doing it as a run goes on is ours.
    """

    def __init__(self, parts: Sequence[Policy], *, least: int) -> None:
        super().__init__(parts)
        self._uses: NDArray[np.float64] = np.zeros((len(parts), self._num_experts))
        self._latest: list[int] = []  # keys used since the shares were looked at
        self._layers = np.array([n for n, part in enumerate(parts) if part.budget_bytes], np.int64)
        self._sizes = np.array([parts[layer].sizes[0] for layer in self._layers], np.int64)
        self._least = least
        self._targets = [part.budget_bytes for part in parts]
        self._giving = [0] * len(parts)  # taken from a share, and perhaps still in use
        self._free_bytes = 0
        self._next = _PERIOD

    def _access(self, layer: int, keys: Sequence[int], token: int) -> Decision:
        if token >= self._next:
            self._rebalance()
            self._next = token + _PERIOD
        self._latest += keys
        decision = super()._access(layer, keys, token)
        if self._giving[layer]:
            self._free_bytes += self._giving[layer]
            self._giving[layer] = 0
        if self._targets[layer] != self._parts[layer].budget_bytes:
            self._move(layer)
        return decision

    def _move(self, layer: int) -> None:
        part = self._parts[layer]
        change = min(self._targets[layer] - part.budget_bytes, self._free_bytes)
        if change > 0:
            self._free_bytes -= change
        else:
            self._giving[layer] = -change
        part.budget_bytes += change

    def _rebalance(self) -> None:
        self._uses *= _FADING
        self._uses += np.bincount(self._latest, minlength=self._uses.size).reshape(self._uses.shape)
        self._latest.clear()
        if not len(self._layers):
            return
        gains = -np.sort(-self._uses[self._layers], axis=1)
        shares = np.array([self._targets[layer] for layer in self._layers], np.int64)
        counts = np.minimum(shares // self._sizes, self._num_experts)
        after = balance_layers(
            gains, self._sizes, counts, int(shares.sum()), least=min(self._least, int(counts.min()))
        )
        for layer, size, n in zip(
            self._layers.tolist(), self._sizes.tolist(), after.tolist(), strict=True
        ):
            self._targets[layer] = n * size

    def lower(self, n_bytes: int, token: int) -> list[int]:
        """See ``Policy.lower``."""
        self._free_bytes, self._giving = 0, [0] * len(self._parts)
        evicted = super().lower(n_bytes, token)
        self._targets = [part.budget_bytes for part in self._parts]
        return evicted


def by_layer(
    kind: LayerBudget,
    factory: PolicyFactory,
    shares: Mapping[int, int],
    num_experts: int,
    num_experts_per_tok: int,
) -> PolicyFactory:
    """Make a policy a layer within ``shares``, in bytes; a layer without a share keeps nothing.

    Budget of an ``adaptive`` one moves among the layers that have a share to begin with.
    """

    def make(sizes: Sequence[int], budget_bytes: int) -> Policy:
        parts = [
            factory(sizes[first : first + num_experts], shares.get(first // num_experts, 0))
            for first in range(0, len(sizes), num_experts)
        ]
        if kind == "adaptive":
            return Adaptive(parts, least=num_experts_per_tok)
        return Layered(parts)

    return make
