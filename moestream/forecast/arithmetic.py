"""A model's arithmetic and a disk as the clock takes them: in seconds, part by part.

Owns how a token's seconds are spread over its layers. The sums are ``speed``'s.
"""

from moestream.forecast.demand import Demand
from moestream.forecast.speed import ATTENTION
from moestream.machine.speeds import DiskSpeed, Speeds
from moestream.traces.clock.machine import ClockDisk, Work

SUBMIT_S = 40e-6
"""Of asking for one expert. Measured with the demo model: 35 to 55 us."""
WAKE_S = 250e-6
"""Until threads that slept while their layer waited are all at work. Measured there, two threads:
260 us; one thread alone: 100."""
_GATE_S = 10e-6
"""Of guessing for one layer, beside its router's weights."""


def work_of(demand: Demand, machine: Speeds, context: int) -> Work:
    """What a token after ``context`` others takes of a machine, streamed, all experts in memory."""
    speeds, layers = machine.kernel_bytes_per_s, max(demand.num_moe_layers, 1)
    output_s = sum(n_bytes / speeds[name] for name, n_bytes in demand.output_bytes.items())
    dense_s = sum(n_bytes / speeds[name] for name, n_bytes in demand.dense_bytes.items())
    experts_s = sum(n_bytes / speeds[name] for name, n_bytes in demand.expert_bytes.items())
    remembered = demand.kv_bytes * context + 2 * demand.state_bytes
    memory_s = remembered / (ATTENTION * machine.memory_bytes_per_s)
    calls_s = demand.num_layers * machine.layer_s + layers * machine.streamed_layer_s
    gate_bytes = 4 * demand.hidden_size * demand.num_experts
    return Work(
        layer_s=(dense_s - output_s + memory_s + calls_s) / layers,
        expert_s=experts_s / (layers * max(demand.num_experts_per_tok, 1)),
        token_s=output_s,
        guess_s=_GATE_S + gate_bytes / machine.memory_bytes_per_s,
        submit_s=SUBMIT_S,
        wake_s=WAKE_S,
    )


def disk_of(disk: DiskSpeed) -> ClockDisk:
    """A disk as it was measured: an expert alone waits ``latency_s`` before its bytes come."""
    return ClockDisk(disk.latency_s, disk.bytes_per_s)
