"""A profile in memory: counts of a workload's routing, and what rates they come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.errors import ProfileError
from moestream.profiles.fingerprint import Fingerprint

PROFILE_HALF_LIFE = 512.0
"""Tokens in which a use fades by half in a profile: a habit, not the last sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Which experts a workload used.

    ``uses`` (L, N) counts every use, ``decayed`` (L, N) gives those of long ago less weight; row i
    is of ``layers[i]``. ``tokens`` is how many were routed, ``saved`` an ISO date or nothing,
    ``options`` what the workload was, for the reader alone.
    """

    name: str
    model: str
    fingerprint: Fingerprint
    tokens: int
    uses: NDArray[np.int64]
    decayed: NDArray[np.float64]
    half_life: float = PROFILE_HALF_LIFE
    saved: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have experts."""
        return tuple(self.fingerprint.expert_bytes)

    def shares(self) -> NDArray[np.float64]:
        """Each expert's part of its layer's uses, by the decayed counts: (L, N), rows of sum 1.

        A layer that was never seen has a row of zeros.
        """
        totals = self.decayed.sum(axis=1, keepdims=True)
        shares: NDArray[np.float64] = self.decayed / np.where(totals > 0, totals, 1)
        return shares

    def key_rates(self) -> NDArray[np.float64]:
        """Uses that one token makes of each expert, on average: (K,), by key."""
        n = self.fingerprint.num_experts
        rates = np.zeros(((max(self.layers) + 1), n))
        rates[list(self.layers)] = self.shares() * self.fingerprint.num_experts_per_tok
        return rates.ravel()

    def require(self, model: Fingerprint, name: str) -> None:
        """Make sure that it is of a model, that is called ``name``.

        Raises:
            ProfileError: it is of another; the message names both and what differs.
        """
        difference = self.fingerprint.difference(model)
        if difference is not None:
            raise ProfileError(
                f"profile {self.name} is of {self.model or 'another model'}, not of {name}: "
                f"{difference}; make one with: moestream profile save NAME {name}"
            )


def mix(parts: Sequence[tuple[Profile, float]], name: str) -> Profile:
    """Join profiles of one model: plain counts add up, decayed ones by weight.

    A profile's weight is its part in the mixture whatever the length of its workload.

    Raises:
        ProfileError: they are of different models; the message says which.
    """
    first = parts[0][0]
    for other, _ in parts[1:]:
        difference = first.fingerprint.difference(other.fingerprint)
        if difference is not None:
            raise ProfileError(
                f"profile {other.name} is not of the same model as {first.name}: "
                f"{difference.replace('there', f'in {first.name}').replace('here', 'in the other')}"
            )
    weights = np.array([weight for _, weight in parts]) / sum(weight for _, weight in parts)
    masses = [float(part.decayed.sum(axis=1).mean()) for part, _ in parts]
    shares = np.stack([part.shares() for part, _ in parts])
    known = next((p.fingerprint for p, _ in parts if p.fingerprint.tensors_sha256), None)
    return Profile(
        name=name,
        model=first.model,
        fingerprint=known or first.fingerprint,
        tokens=sum(part.tokens for part, _ in parts),
        uses=np.sum([part.uses for part, _ in parts], axis=0),
        decayed=np.tensordot(weights, shares, 1) * float(weights @ masses),
        half_life=max(part.half_life for part, _ in parts),
        options={"merged": [f"{part.name}:{weight:g}" for part, weight in parts]},
    )
