"""A model's arithmetic and a disk as the clock takes them: in seconds, part by part.

Owns what a token's arithmetic takes, and how that is spread over its layers: every weight that it
reads at the speed of the kernel for its type, keys and values at a part of the memory's, and for
each layer what it costs to call the kernels.
"""

from moestream.forecast.demand import Demand
from moestream.layers.gates_ahead import router_copy_bytes
from moestream.machine.speeds import DiskSpeed, Speeds
from moestream.traces.clock.machine import ClockDisk, Work

ATTENTION = 0.5
"""Of the memory's speed. Measured with the demo model after 4,000 and 8,000 tokens: 0.45 to 0.6."""
SUBMIT_S = 40e-6
"""Of asking for one expert. Measured with the demo model: 35 to 55 us."""
NOTICE_S = 20e-6
"""Until who waits for a read hears of its end. Measured: 21 us, several times that on a busy
machine."""
SPREAD = 0.2
"""By how much the time of a piece varies. Measured on a quiet machine: 0.15 to 0.25."""
WAKE_S = 250e-6
"""Until threads that slept while their layer waited are all at work. Measured there, two threads:
260 us; one thread alone: 100."""
_GATE_S = 10e-6
"""Of guessing for one layer, beside its router's weights."""


def compute_s(demand: Demand, machine: Speeds, context: int, *, streamed: bool) -> float:
    """Seconds of arithmetic for a token after ``context`` others."""
    weights = [*demand.dense_bytes.items(), *demand.expert_bytes.items()]
    seconds = sum(n_bytes / machine.kernel_bytes_per_s[name] for name, n_bytes in weights)
    seconds += _memory_s(demand, machine, context)
    seconds += demand.num_layers * machine.layer_s
    return seconds + (demand.num_moe_layers * machine.streamed_layer_s if streamed else 0)


def _memory_s(demand: Demand, machine: Speeds, context: int) -> float:
    """Seconds of going through what is remembered."""
    remembered = demand.kv_bytes * context + 2 * demand.state_bytes
    return remembered / (ATTENTION * machine.memory_bytes_per_s)


def work_of(demand: Demand, machine: Speeds, context: int) -> Work:
    """What a token after ``context`` others takes of a machine, streamed, all experts in memory."""
    speeds, layers = machine.kernel_bytes_per_s, max(demand.num_moe_layers, 1)
    output_s = sum(n_bytes / speeds[name] for name, n_bytes in demand.output_bytes.items())
    dense_s = sum(n_bytes / speeds[name] for name, n_bytes in demand.dense_bytes.items())
    experts_s = sum(n_bytes / speeds[name] for name, n_bytes in demand.expert_bytes.items())
    calls_s = demand.num_layers * machine.layer_s + layers * machine.streamed_layer_s
    gate_bytes = router_copy_bytes(demand.hidden_size, demand.num_experts)
    return Work(
        layer_s=(dense_s - output_s + _memory_s(demand, machine, context) + calls_s) / layers,
        expert_s=experts_s / (layers * max(demand.num_experts_per_tok, 1)),
        token_s=output_s,
        guess_s=_GATE_S + gate_bytes / machine.memory_bytes_per_s,
        submit_s=SUBMIT_S,
        wake_s=WAKE_S,
    )


def disk_of(disk: DiskSpeed) -> ClockDisk:
    """A disk as it was measured: an expert alone waits ``latency_s`` before its bytes come."""
    return ClockDisk(disk.latency_s, disk.bytes_per_s, notice_s=NOTICE_S, spread=SPREAD)
