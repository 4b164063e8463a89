"""Questions to profiles: how even is the use, what do the hottest cover, how alike are two."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.policies import hottest
from moestream.profiles.profile import Profile


@dataclass(frozen=True, slots=True)
class LayerUse:
    """How one layer's uses spread over its experts, by the decayed counts.

    ``entropy`` is in bits, of at most ``log2(num_experts)``; ``coverage`` what share of the uses
    fell to the hottest quarter of the experts; ``hottest`` are experts and their shares, in order.
    """

    layer: int
    entropy: float
    coverage: float
    hottest: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two profiles at one budget: A's and B's hottest experts that fit.

    ``shared`` is the share of experts that are in both sets, of those in either. ``misses[x][y]``
    is what part of x's uses falls to experts outside y's set; 0 is A, 1 is B.
    """

    budget_bytes: int
    shared: float
    misses: tuple[tuple[float, float], tuple[float, float]]


def layer_uses(profile: Profile, num_hottest: int = 3) -> list[LayerUse]:
    """Look at every layer."""
    quarter = -(-profile.fingerprint.num_experts // 4)
    found = []
    for layer, shares in zip(profile.layers, profile.shares(), strict=True):
        order = np.argsort(-shares, kind="stable")
        positive = shares[shares > 0]
        found.append(
            LayerUse(
                layer=layer,
                entropy=abs(float(-(positive * np.log2(positive)).sum())),
                coverage=float(shares[order[:quarter]].sum()),
                hottest=[
                    (int(expert), float(shares[expert]))
                    for expert in order[:num_hottest]
                    if shares[expert] > 0
                ],
            )
        )
    return found


def coverage_curve(profile: Profile) -> NDArray[np.float64]:
    """Share of all uses that the n hottest experts of a layer take, on average: (N + 1,)."""
    shares = -np.sort(-profile.shares(), axis=1)
    return np.concatenate([[0.0], np.cumsum(shares.mean(axis=0))])


def key_sizes(profile: Profile) -> NDArray[np.int64]:
    """Bytes of every key's expert: (K,)."""
    sizes = np.zeros(max(profile.layers) + 1, np.int64)
    for layer, n_bytes in profile.fingerprint.expert_bytes.items():
        sizes[layer] = n_bytes
    return np.repeat(sizes, profile.fingerprint.num_experts)


def overlaps(a: Profile, b: Profile, budgets: Sequence[int]) -> list[Overlap]:
    """Compare what two profiles would hold in memory; both are of one model."""
    sizes = key_sizes(a).tolist()
    rates = [a.key_rates(), b.key_rates()]
    found = []
    for budget_bytes in budgets:
        sets = [hottest(rate.tolist(), sizes, budget_bytes) for rate in rates]
        either = len(set(sets[0]) | set(sets[1]))
        misses = tuple(
            tuple(1 - float(rate[held].sum() / rate.sum()) for held in sets) for rate in rates
        )
        shared = len(set(sets[0]) & set(sets[1])) / either if either else 1.0
        found.append(Overlap(budget_bytes, shared, misses))  # type: ignore[arg-type]
    return found


def similarity(a: Profile, b: Profile) -> list[float]:
    """Share of uses that two profiles have in common, layer by layer: 1 for the same, 0 for none.

    It is 1 less the total variation distance.
    """
    return [float(x) for x in np.minimum(a.shares(), b.shares()).sum(axis=1)]
