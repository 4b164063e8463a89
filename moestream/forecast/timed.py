"""The time of a token that is streamed, by the clock: the live code on a machine that is told of.

Owns which replays a forecast takes. How often an expert is in memory is told, and which it is is
drawn; guesses are as good as measured with the demo model (``traces.clock.foretold``).
"""

from bisect import bisect_left
from dataclasses import dataclass

from moestream.forecast.demand import Demand
from moestream.streaming.build import policy_factory, spare_slots
from moestream.streaming.options import StreamingOptions
from moestream.traces.clock.drawn import DrawnRouting
from moestream.traces.clock.foretold import MEASURED, Drawn, Foretell, Recalls, foresee_all
from moestream.traces.clock.machine import ClockDisk, Work
from moestream.traces.clock.reader import slot_bytes
from moestream.traces.clock.replay import Replay, Setting, Timing

_WARM_UP, _TOKENS = 3, 12
"""Replayed without being counted, and counted."""
_HIT_RATES = (0.0, 0.4, 0.7, 0.85, 0.95)
"""At which a token is timed; between them, and up to 1, its time lies on lines."""
_WORTH = 1.03
"""Times as fast as with fewer layers ahead that more of them must make it."""
MOST_AHEAD = len(MEASURED)
"""Layers for which it is known how good guesses are."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A model's arithmetic and experts on a machine."""

    demand: Demand
    work: Work
    disk: ClockDisk

    def time(
        self,
        hit_rate: float,
        layers_ahead: int,
        *,
        experts_bytes: int | None = None,
        perfect: bool = False,
        recalls: Recalls = MEASURED,
        tokens: int = _TOKENS,
    ) -> Timing:
        """Replay it with guesses of so many layers ahead; ``perfect`` ones know the future.

        Others are right as often as ``recalls`` say. Half of the experts have room, unless
        ``experts_bytes`` says otherwise.
        """
        demand = self.demand
        size, n = max(int(demand.one_expert_bytes), 1), demand.num_experts
        k, layers = demand.num_experts_per_tok, max(demand.num_moe_layers, 1)
        half = min(layers * n // 2 + spare_slots(k, layers_ahead), layers * n - 1)
        setting = Setting(
            dict.fromkeys(range(layers), size),
            *(n, k, policy_factory(StreamingOptions())),
            half * slot_bytes(size) if experts_bytes is None else experts_bytes,
            layers_ahead,
            tries_without=False,
        )
        foretell: Foretell = foresee_all if perfect else Drawn(recalls, n)
        timed = Replay(setting, self.disk, self.work, foretell if layers_ahead else None)
        routing = DrawnRouting(setting, hit_rate)
        return timed.run(routing.passes(timed, _WARM_UP + tokens), _WARM_UP)

    def best_ahead(self, hit_rate: float) -> int:
        """From how many layers ahead to guess, 0 if that does not pay."""
        best, tps = 0, self.time(hit_rate, 0).tps
        for ahead in range(1, MOST_AHEAD + 1):
            if (found := self.time(hit_rate, ahead).tps) > _WORTH * tps:
                best, tps = ahead, found
        return best


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds of one token, and of them waited for; the disk reads for ``busy_s``."""

    token_s: float
    stall_s: float
    busy_s: float

    def varied(self, *, compute: float, disk: float) -> float:
        """Seconds of the token with arithmetic and the disk so many times as fast.

        As much of the arithmetic as before has reads to hide.
        """
        hidden_s = (self.busy_s - self.stall_s) / compute
        stall_s = max(self.busy_s / disk - hidden_s, 0.0)
        return (self.token_s - self.stall_s) / compute + stall_s


class Timetable:
    """What a token takes, by hit rate, with guesses of so many layers ahead."""

    def __init__(self, streamed: Streamed, layers_ahead: int) -> None:
        """Replay it at some hit rates."""
        found: dict[float, Moment] = {}
        for wanted in _HIT_RATES:
            timing = streamed.time(wanted, layers_ahead)
            parts = (timing.seconds, timing.stall_s, timing.busy_s)
            rate = timing.counts.decode.cached_rate  # as near as so few experts can come
            found[rate] = Moment(*(part / timing.tokens for part in parts))
        demand = streamed.demand
        layers = max(demand.num_moe_layers, 1)
        guesses = layers_ahead * (layers - 1) - layers_ahead * (layers_ahead - 1) // 2
        work = streamed.work
        resident_s = work.token_total_s(layers, demand.num_experts_per_tok)
        found[1.0] = Moment(resident_s + max(guesses, 0) * work.guess_s, 0.0, 0.0)
        self._rates = sorted(found)
        self._moments = [found[rate] for rate in self._rates]

    def at(self, hit_rate: float) -> Moment:
        """On the line between its neighbours."""
        rates, index = self._rates, bisect_left(self._rates, hit_rate)
        index = min(max(index, 1), len(rates) - 1)
        left, right = self._moments[index - 1], self._moments[index]
        part = (hit_rate - rates[index - 1]) / (rates[index] - rates[index - 1])
        part = min(max(part, 0.0), 1.0)
        names = ("token_s", "stall_s", "busy_s")
        pairs = ((getattr(left, name), getattr(right, name)) for name in names)
        return Moment(*(first + part * (second - first) for first, second in pairs))
