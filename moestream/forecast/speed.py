"""The time of a token, from what it asks for and what a machine gives.

Resident, a token takes ``compute``: every weight that it reads at the speed of the kernel for its
type, keys and values at a part of the memory's, and for each layer what it costs to call the
kernels.

Streamed, a layer finds each of its k experts with the hit rate h. It waits for a read with
probability 1 - h**k, which costs the disk's latency, and reads k * (1 - h) experts at the disk's
speed. Reads and arithmetic overlap in part: a token takes

    compute + read - OVERLAP * min(compute, read)

between their sum (0) and the longer of the two (1).
"""

from dataclasses import dataclass
from typing import NamedTuple

from moestream.forecast.demand import Demand
from moestream.forecast.hits import Range
from moestream.machine.speeds import DiskSpeed, Speeds

OVERLAP = 0.15
"""Measured with the demo model at budgets of 250M to 700M, on two cores: 0 to 0.3."""
ATTENTION = 0.5
"""Of the memory's speed. Measured with the demo model after 4,000 and 8,000 tokens: 0.45 to 0.6."""
_MOST_OVERLAP = 0.6
COMPUTE_VARIES = 0.15
"""Part by which the speed of the same arithmetic differed from run to run."""
DISK_VARIES = 0.25
"""The same of the disk."""


class Times(NamedTuple):
    """Seconds of one token."""

    compute_s: float
    read_s: float

    def token_s(self, overlap: float = OVERLAP) -> float:
        """With so much of the shorter one hidden behind the longer."""
        return self.compute_s + self.read_s - overlap * min(self)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Tokens a second; from ``low_tps`` to ``high_tps`` it is sure of. Bytes are per token."""

    tps: float
    low_tps: float
    high_tps: float
    compute_s: float
    read_s: float
    hit_rate: float | None
    read_bytes: float


def compute_s(demand: Demand, machine: Speeds, context: int, *, streamed: bool) -> float:
    """Seconds of arithmetic for a token after ``context`` others."""
    weights = [*demand.dense_bytes.items(), *demand.expert_bytes.items()]
    seconds = sum(n_bytes / machine.kernel_bytes_per_s[name] for name, n_bytes in weights)
    remembered = demand.kv_bytes * context + 2 * demand.state_bytes
    seconds += remembered / (ATTENTION * machine.memory_bytes_per_s)
    seconds += demand.num_layers * machine.layer_s
    return seconds + (demand.num_moe_layers * machine.streamed_layer_s if streamed else 0)


def read_s(demand: Demand, disk: DiskSpeed, hit_rate: float) -> float:
    """Seconds of reading for a token that finds its experts with a hit rate."""
    chosen = demand.num_experts_per_tok
    waits = 1 - hit_rate**chosen
    n_bytes = chosen * (1 - hit_rate) * demand.one_expert_bytes
    return demand.num_moe_layers * (waits * disk.latency_s + n_bytes / disk.bytes_per_s)


def forecast(
    demand: Demand, machine: Speeds, disk: DiskSpeed, context: int, hits: Range | None
) -> Forecast:
    """Speed after ``context`` tokens; ``hits`` is None where all experts are mapped and fit."""
    arithmetic = compute_s(demand, machine, context, streamed=hits is not None)
    if hits is None:
        tps = 1 / arithmetic
        varies = COMPUTE_VARIES
        return Forecast(tps, tps * (1 - varies), tps * (1 + varies), arithmetic, 0.0, None, 0.0)
    reading = read_s(demand, disk, hits.expected)
    slow = Times(
        arithmetic / (1 - COMPUTE_VARIES), read_s(demand, disk, hits.low) / (1 - DISK_VARIES)
    )
    fast = Times(
        arithmetic / (1 + COMPUTE_VARIES), read_s(demand, disk, hits.high) / (1 + DISK_VARIES)
    )
    return Forecast(
        tps=1 / Times(arithmetic, reading).token_s(),
        low_tps=1 / slow.token_s(0),
        high_tps=1 / fast.token_s(_MOST_OVERLAP),
        compute_s=arithmetic,
        read_s=reading,
        hit_rate=hits.expected,
        read_bytes=sum(demand.expert_bytes.values()) * (1 - hits.expected),
    )
