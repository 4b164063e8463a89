"""Layers' shares of the memory for experts, where they do not all share one cache.

Turns the division in bytes that ``budgets`` makes into slots, and into a policy for each layer.
"""

from collections.abc import Mapping, Sequence

from moestream.experts.budgets import LayerBudget, split_budget
from moestream.experts.policies import Adaptive, Layered, Policy, PolicyFactory


def layer_slots(
    kind: LayerBudget,
    classes: Mapping[int, list[int]],
    num_experts: int,
    slots: Mapping[int, int],
    spare: int,
    weights: Mapping[int, float] | None = None,
) -> dict[int, int]:
    """How many experts each layer may keep.

    ``classes`` are the layers by the bytes of their slots, and ``slots`` how many of each size
    there is memory for, of which ``spare`` are left to what is not kept. With ``weights``
    each layer has its part of the whole, instead of what ``kind`` gives.
    """
    sizes = {layer: slot_bytes for slot_bytes, layers in classes.items() for layer in layers}
    whole = all(slots[size] >= num_experts * len(layers) for size, layers in classes.items())
    kept = {size: slots[size] - (0 if whole else min(spare, slots[size])) for size in classes}
    budget_bytes = sum(size * count for size, count in kept.items())
    whole_bytes = {layer: num_experts * size for layer, size in sizes.items()}
    if weights is None:
        shares = split_budget(kind, budget_bytes, whole_bytes)
    else:
        part = budget_bytes / (sum(weights.values()) or 1)
        shares = {n: min(int(weights[n] * part), most) for n, most in whole_bytes.items()}
    return {layer: n_bytes // sizes[layer] for layer, n_bytes in shares.items()}


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
