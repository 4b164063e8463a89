"""How often an expert is in memory when its layer asks, by the share of all experts that are.

Owns the curves that come with the package and those made of a trace or a profile. All are of the
default policy. Knows nothing of time.
"""

import json
import math
import os
from bisect import bisect_left
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

from moestream.errors import TraceError
from moestream.policies import hottest
from moestream.profiles import Fingerprint, Profile
from moestream.profiles.analysis import key_sizes
from moestream.traces.format import read_trace
from moestream.traces.simulator import PolicySpec, Simulator
from moestream.traces.to_profile import fingerprint_of

SHARES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Where curves are measured."""
_TRACE_VARIES = 0.2
"""Part by which misses may differ from those of a trace or profile of the user's own."""


class Range(NamedTuple):
    """A hit rate, and what it may be at worst and at best."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, slots=True)
class HitCurve:
    """Hit rates at ``SHARES``, and whose they are."""

    source: str
    num_experts: int
    rates: tuple[float, ...]

    def at(self, share: float) -> float:
        """The hit rate at a share of 0 to 1, on the line between its neighbours."""
        index = min(max(bisect_left(SHARES, share), 1), len(SHARES) - 1)
        left, right = SHARES[index - 1], SHARES[index]
        part = min(max((share - left) / (right - left), 0.0), 1.0)
        return self.rates[index - 1] + part * (self.rates[index] - self.rates[index - 1])


@dataclass(frozen=True, slots=True)
class Hits:
    """What is known of a model's hit rates: the curve to go by, and those it may differ as."""

    expected: HitCurve
    others: tuple[HitCurve, ...] = ()

    def at(self, share: float) -> Range:
        """The hit rate at a share of 0 to 1; its range is that of all curves."""
        rate = self.expected.at(share)
        if not self.others:
            missed = 1 - rate
            low, high = 1 - missed * (1 + _TRACE_VARIES), 1 - missed * (1 - _TRACE_VARIES)
            return Range(max(low, 0.0), rate, high)
        rates = [rate, *(curve.at(share) for curve in self.others)]
        return Range(min(rates), rate, max(rates))


def curve_of_trace(
    path: str | os.PathLike[str], source: str | None = None, *, of: Fingerprint | None = None
) -> HitCurve:
    """Replay a trace through the default policy at every share.

    Raises:
        TraceError: the file is not a trace that can be replayed; or not one of the model ``of``.
    """
    trace = read_trace(path)
    if of is not None and (difference := fingerprint_of(trace.header).difference(of)):
        raise TraceError(
            f"{path} is a trace of another model, {trace.header.model}: {difference}. Record one "
            "of this model with generate --trace FILE."
        )
    simulator = Simulator(trace)
    total = simulator.header.total_bytes
    rates = [simulator.run(PolicySpec("decay"), int(share * total)).hit_rate for share in SHARES]
    return HitCurve(source or str(path), simulator.header.num_experts, tuple(rates))


def curve_of_profile(profile: Profile) -> HitCurve:
    """Keep the experts that a profile used most, at every share.

    On the public traces this differs from what the default policy hits by 3 points at most.
    """
    rates, sizes = profile.key_rates().tolist(), key_sizes(profile).tolist()
    total, asked = profile.fingerprint.total_bytes, sum(rates)
    found = [
        sum(rates[key] for key in hottest(rates, sizes, int(share * total))) for share in SHARES
    ]
    return HitCurve(
        f"profile {profile.name}",
        profile.fingerprint.num_experts,
        tuple(rate / asked for rate in found),
    )


def default_curves() -> list[HitCurve]:
    """The curves that come with the package; ``scripts/bench/hit_curves.py`` makes them."""
    text = (files("moestream.forecast") / "curves.json").read_text(encoding="utf-8")
    return [
        HitCurve(entry["source"], entry["num_experts"], tuple(entry["rates"]))
        for entry in json.loads(text)
    ]


def default_hits(num_experts: int) -> Hits:
    """Go by the curve of the model with the most similar number of experts a layer."""
    curves = default_curves()
    curves.sort(key=lambda curve: abs(math.log(curve.num_experts / max(num_experts, 1))))
    return Hits(curves[0], tuple(curves[1:]))
