"""A model at several budgets: how memory is divided, how fast it will be, and what to do.

Owns which budgets are looked at, and the suggestion.
"""

from dataclasses import dataclass, replace

from moestream.forecast.demand import Demand
from moestream.forecast.first_token import FirstToken, first_token
from moestream.forecast.hits import Hits, Range
from moestream.forecast.speed import Forecast, Speedometer
from moestream.forecast.verdict import Verdict, verdict_of
from moestream.machine.speeds import DiskSpeed, Speeds
from moestream.streaming.memory import MemoryPlan

_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Of all experts: the budgets that would hold so many are looked at."""
_LARGE_CACHE = 0.25
"""Share of a budget from which a KV cache is worth storing in half of its memory."""
_STEP = 1 << 20
_NO_DISK = DiskSpeed(0.0, float("inf"))
"""Of a model that has no experts: nothing is read."""


@dataclass(frozen=True, slots=True)
class Point:
    """One budget and what comes of it; ``share`` is of the experts in memory."""

    plan: MemoryPlan
    share: float
    forecast: Forecast
    prompts: tuple[FirstToken, ...] = ()

    @property
    def case(self) -> Verdict:
        """What to expect."""
        return verdict_of(self.plan)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What will come of a model in this memory, and in others."""

    chosen: Point
    """What the verdict is about: the first budget that was asked for, or what ``auto`` comes to."""
    auto: Point
    asked: tuple[Point, ...]
    points: tuple[Point, ...]
    """All of these, and others if none was asked for, by budget."""
    floor_budget_bytes: int
    """The least of use: beside all else, it holds one token's experts."""
    flags: tuple[str, ...]
    """What to give ``generate``; none where its defaults do, or nothing would."""


def with_budget(plan: MemoryPlan, budget_bytes: int) -> MemoryPlan:
    """The same model within another budget, which leaves as much room for keys and values."""
    others = plan.dense_bytes + plan.kv_bytes + plan.process_bytes
    experts = max(budget_bytes - others, 0)
    return replace(plan, budget_bytes=budget_bytes, experts_bytes=experts)


@dataclass(frozen=True, slots=True)
class Grounds:
    """What is foreseen of: a model, on a machine, with ``context`` tokens in the KV cache."""

    demand: Demand
    machine: Speeds
    disk: DiskSpeed | None
    hits: Hits
    context: int

    @property
    def speedometer(self) -> Speedometer:
        """Forecasts of all this."""
        return Speedometer(self.demand, self.machine, self.disk or _NO_DISK, self.context)


def point_of(plan: MemoryPlan, grounds: Grounds) -> Point:
    """Roughly foresee a model in memory that is divided so, for a line among many others."""
    share, found = _found(plan, grounds.hits)
    return Point(plan, share, grounds.speedometer.rough(found))


def point_at(
    plan: MemoryPlan,
    grounds: Grounds,
    prompts: tuple[int, ...] = (),
    *,
    look_further: bool = False,
    meter: Speedometer | None = None,
) -> Point:
    """Foresee a model in memory that is divided so.

    ``meter`` is that of the grounds, which replays once for all that ask it.
    """
    share, found = _found(plan, grounds.hits)
    disk = grounds.disk or _NO_DISK
    times = (first_token(grounds.demand, grounds.machine, disk, plan, tokens) for tokens in prompts)
    speed = (meter or grounds.speedometer).forecast(found, look_further=look_further)
    return Point(plan, share, speed, tuple(times))


def _found(plan: MemoryPlan, hits: Hits) -> tuple[float, Range | None]:
    """The share of the experts in memory, and how often one is found there if not all are."""
    total = plan.total_expert_bytes
    share = min(plan.experts_bytes / total, 1.0) if total else 1.0
    return share, None if plan.fits or not total else hits.at(share)


def look_ahead(
    plan: MemoryPlan,
    grounds: Grounds,
    *,
    halved_cache: bool = False,
    budgets: tuple[int, ...] = (),
    prompts: tuple[int, ...] = (),
) -> Outlook:
    """Forecast ``plan`` and, beside it, ``budgets`` or those that hold some shares of all experts.

    ``halved_cache`` says that the KV cache is stored in few bits already. Prompts of so many tokens
    are looked at.
    """
    meter = grounds.speedometer

    def point(plan: MemoryPlan, *, look_further: bool = False) -> Point:
        return point_at(plan, grounds, prompts, look_further=look_further, meter=meter)

    others = plan.other_bytes
    wanted = budgets or tuple(
        others + int(share * plan.total_expert_bytes)
        for share in _SHARES[not plan.total_expert_bytes :]
    )
    auto = point(plan, look_further=not budgets)
    rounded = dict.fromkeys(-(-n_bytes // _STEP) * _STEP for n_bytes in wanted)
    looked = [
        point(with_budget(plan, n_bytes), look_further=bool(budgets) and not place)
        for place, n_bytes in enumerate(rounded)
    ]
    chosen = looked[0] if budgets else auto
    points = {each.plan.budget_bytes: each for each in (auto, *looked)}
    return Outlook(
        chosen=chosen,
        auto=auto,
        asked=tuple(looked) if budgets else (),
        points=tuple(points[n_bytes] for n_bytes in sorted(points)),
        floor_budget_bytes=-(-plan.least_bytes // _STEP) * _STEP,
        flags=_flags(chosen.plan, halved_cache),
    )


def _flags(plan: MemoryPlan, halved_cache: bool) -> tuple[str, ...]:
    """Defaults do what can be done; what they cannot know is what a cache is worth to the user."""
    if plan.fits or plan.other_bytes > plan.budget_bytes:
        return ()
    flags = ["--budget", f"{plan.budget_bytes // _STEP}M"]
    if not halved_cache and plan.kv_bytes > _LARGE_CACHE * plan.budget_bytes:
        flags += ["-ctk", "q8_0", "-ctv", "q8_0"]
    return tuple(flags)
