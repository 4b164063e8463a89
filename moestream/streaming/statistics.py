"""What residency did: counts of one engine's life, decode and prefill apart.

Knows how to add up; is told what happened.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


@dataclass(slots=True)
class Counts:
    """Routed experts asked for in one phase, each counted once a layer and pass.

    A hit was wholly in memory when its layer asked; ``foreseen`` ones only because they had been
    read on speculation: what Fate counts as hits are the two together, so is ``hit_rate``. ``late``
    ones were missed, but their read had been begun on speculation.
    """

    turns: int = 0
    """Times that a layer asked."""
    hits: int = 0
    misses: int = 0
    foreseen: int = 0
    """Of the hits."""
    late: int = 0
    demand_bytes: int = 0
    """Of the missing experts that no speculation had begun to read."""
    stall_s: float = 0.0

    @property
    def hit_rate(self) -> float:
        """Share of the routed experts that were in memory; 0 when none were asked for."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0

    @property
    def cached_rate(self) -> float:
        """Share that was in memory without a guess."""
        asked = self.hits + self.misses
        return (self.hits - self.foreseen) / asked if asked else 0.0


@dataclass(slots=True)
class LayerRecall:
    """How many of the experts that a layer routed to had been predicted."""

    routed: int = 0
    predicted: int = 0

    @property
    def recall(self) -> float:
        """Recall@k; 0 when nothing was predicted."""
        return self.predicted / self.routed if self.routed else 0.0


@dataclass(slots=True)
class Warming:
    """What was brought into memory from a profile, before the first token.

    ``bytes`` are of the experts, ``read_bytes`` of those that were not in memory yet.
    """

    experts: int = 0
    bytes: int = 0
    read_bytes: int = 0
    elapsed_s: float = 0.0


class Tally(NamedTuple):
    """What is shown while a model runs: the part of ``ResidencyStats`` that costs nothing."""

    hits: int = 0
    """In decode, as ``misses``."""
    misses: int = 0
    pinned_bytes: int = 0
    read_bytes: int = 0


@dataclass(slots=True)
class ResidencyStats:
    """What it took to have the experts in memory. Bytes are whole experts' unless said."""

    decode: Counts = field(default_factory=Counts)
    prefill: Counts = field(default_factory=Counts)
    warming: Warming = field(default_factory=Warming)
    speculative_bytes: int = 0
    useful_bytes: int = 0
    wasted_bytes: int = 0
    cancelled: int = 0
    read_bytes: int = 0
    """What the disk was asked for, with what alignment adds."""
    read_busy_s: float = 0.0
    deepest_queue: int = 0
    pinned_bytes: int = 0
    resident_bytes: int = 0
    budget_bytes: int = 0
    given_back_bytes: int = 0
    """Of the budget, because the system ran short of memory."""
    major_faults: int = 0
    recall: dict[int, LayerRecall] = field(default_factory=dict)

    @property
    def stall_s(self) -> float:
        """Of both phases."""
        return self.decode.stall_s + self.prefill.stall_s

    @property
    def bandwidth(self) -> float:
        """Bytes a second while a read was under way."""
        return self.read_bytes / self.read_busy_s if self.read_busy_s else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        values = asdict(self)
        for phase in ("decode", "prefill"):
            values[phase]["hit_rate"] = getattr(self, phase).hit_rate
            values[phase]["cached_rate"] = getattr(self, phase).cached_rate
        values["recall"] = {layer: record.recall for layer, record in self.recall.items()}
        values["bandwidth"] = self.bandwidth
        return values
