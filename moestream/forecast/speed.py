"""The speed of a model on a machine, from what a token asks for and what the machine gives.

Resident, a token takes its arithmetic alone. Streamed, it is timed by the clock at some hit rates,
with the live code of decisions (``timed``): without guesses and with the next layer's, of which a
run takes whichever is faster.
"""

from dataclasses import dataclass
from functools import cached_property

from moestream.forecast.arithmetic import compute_s, disk_of, work_of
from moestream.forecast.demand import Demand
from moestream.forecast.hits import Range
from moestream.forecast.timed import Moment, Streamed, Timetable
from moestream.machine.speeds import DiskSpeed, Speeds

COMPUTE_VARIES = 0.15
"""Part by which the speed of the same arithmetic differed from run to run."""
DISK_VARIES = 0.25
"""The same of the disk."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Tokens a second; from ``low_tps`` to ``high_tps`` it is sure of. Bytes are per token."""

    tps: float
    low_tps: float
    high_tps: float
    compute_s: float
    read_s: float
    """In which the disk reads, be it waited for or not."""
    hit_rate: float | None
    read_bytes: float
    stall_s: float = 0.0
    """In which nothing is computed."""
    layers_ahead: int | None = None
    """From how many layers ahead guesses would pay best; 0 if none do, None if not looked at."""


_OVERLAP = 0.15
"""Of arithmetic and reading, where nothing is replayed. Measured with the demo model: 0 to 0.3."""


class Speedometer:
    """Forecasts of one model on one machine after ``context`` tokens."""

    def __init__(self, demand: Demand, machine: Speeds, disk: DiskSpeed, context: int) -> None:
        self._demand, self._machine, self._context = demand, machine, context
        self._streamed = Streamed(demand, work_of(demand, machine, context), disk_of(disk))

    def forecast(self, hits: Range | None, *, look_further: bool = False) -> Forecast:
        """Speed at some hit rates; ``hits`` is None where all experts are mapped and fit.

        To ``look_further`` is to ask how many layers ahead pay.
        """
        if hits is None:
            return self._resident()
        demand = self._demand
        arithmetic = compute_s(demand, self._machine, self._context, streamed=True)
        expected = self._quickest(hits.expected)
        slow, fast = self._tables[0].at(hits.low), self._quickest(hits.high)
        ahead = self._streamed.best_ahead(hits.expected) if look_further else None
        return Forecast(
            tps=1 / expected.token_s,
            low_tps=1 / slow.varied(compute=1 - COMPUTE_VARIES, disk=1 - DISK_VARIES),
            high_tps=1 / fast.varied(compute=1 + COMPUTE_VARIES, disk=1 + DISK_VARIES),
            compute_s=arithmetic,
            read_s=expected.busy_s,
            hit_rate=hits.expected,
            read_bytes=sum(demand.expert_bytes.values()) * (1 - hits.expected),
            stall_s=expected.stall_s,
            layers_ahead=ahead,
        )

    def rough(self, hits: Range | None) -> Forecast:
        """The same without a replay, which takes a second: a fixed part of reading is hidden."""
        if hits is None:
            return self._resident()
        demand, disk = self._demand, self._streamed.disk
        chosen, missed = demand.num_experts_per_tok, 1 - hits.expected
        arithmetic = compute_s(demand, self._machine, self._context, streamed=True)
        waits_s = (1 - hits.expected**chosen) * disk.latency_s
        bytes_s = chosen * missed * demand.one_expert_bytes / disk.bytes_per_s
        read_s = demand.num_moe_layers * (waits_s + bytes_s)
        stall_s = read_s - _OVERLAP * min(arithmetic, read_s)
        moment = Moment(arithmetic + stall_s, stall_s, read_s)
        return Forecast(
            tps=1 / moment.token_s,
            low_tps=1 / moment.varied(compute=1 - COMPUTE_VARIES, disk=1 - DISK_VARIES),
            high_tps=1 / moment.varied(compute=1 + COMPUTE_VARIES, disk=1 + DISK_VARIES),
            compute_s=arithmetic,
            read_s=read_s,
            hit_rate=hits.expected,
            read_bytes=sum(demand.expert_bytes.values()) * missed,
            stall_s=stall_s,
        )

    def _resident(self) -> Forecast:
        arithmetic = compute_s(self._demand, self._machine, self._context, streamed=False)
        tps, varies = 1 / arithmetic, COMPUTE_VARIES
        return Forecast(tps, tps * (1 - varies), tps * (1 + varies), arithmetic, 0.0, None, 0.0)

    def _quickest(self, hit_rate: float) -> Moment:
        found = (table.at(hit_rate) for table in self._tables)
        return min(found, key=lambda moment: moment.token_s)

    @cached_property
    def _tables(self) -> tuple[Timetable, Timetable]:
        """Without guesses, and with them."""
        return Timetable(self._streamed, 0), Timetable(self._streamed, 1)
