"""What ``auto`` came to, once the experts of a model are streamed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

from moestream.profiles import Profile
from moestream.streaming.options import StreamingOptions
from moestream.streaming.residency import Residency


@dataclass(frozen=True, slots=True)
class Choices:
    """What ``auto`` came to, for the user to be told."""

    io: str
    pin: str
    policy: str
    prefetch_layers: int
    layer_budget: str
    prefetch_mass: float | None
    profile: str | None = None
    asked_split: float | str = 1.0
    split: Mapping[int, float] = field(default_factory=dict)
    """Share of an expert that is kept, by layer."""

    @property
    def mean_split(self) -> float:
        """The mean of these."""
        return fmean(self.split.values()) if self.split else 1.0

    @classmethod
    def of(
        cls, residency: Residency, options: StreamingOptions, profile: Profile | None
    ) -> "Choices":
        """What came of the options."""
        ahead = options.prefetch_layers if options.prefetch else 0
        cached = residency.pin == "none"  # who stays is the page cache's affair
        return cls(
            io=residency.reader.method,
            pin=residency.pin,
            policy="none" if cached else options.policy,
            prefetch_layers=ahead,
            layer_budget="global" if cached else options.layer_budget,
            prefetch_mass=options.prefetch_mass if ahead else None,
            profile=None if profile is None else profile.name,
            asked_split=options.split,
            split=dict(residency.shares),
        )
