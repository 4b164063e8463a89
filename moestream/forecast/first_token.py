"""The time to a prompt's first token, from what it asks for and what a machine gives.

All tokens go through a layer before any enters the next, so that of the experts each one that is
not in memory is read once for a pass, and the next layer's are read while one computes. A pass
has as many tokens as memory has room for their rows, in chunks of 512; a prompt of one chunk reads
a layer's experts when it comes to the layer, and they are computed as they arrive.

What is assumed: the prompt is the first that is run, so that no expert is in memory; its tokens
choose among experts evenly; attention sees all tokens before.
"""

from dataclasses import dataclass

from moestream.engine.streamed_passes import long_pass_tokens
from moestream.forecast.demand import Demand
from moestream.forecast.speed import COMPUTE_VARIES, DISK_VARIES
from moestream.layers.batch import CHUNK_TOKENS
from moestream.machine.speeds import DiskSpeed, Speeds
from moestream.streaming.memory import MemoryPlan

_FOREVER = 1 << 60
PRODUCTS = 0.7
"""Of their speed alone, with the small operations between them. Measured with the demo model, by
processor time of one thread: 512, 1,000 and 3,000 tokens were then off by -2, +5 and +8 %."""


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Seconds to the first token of an answer; from ``low_s`` to ``high_s`` it is sure of."""

    tokens: int
    ttft_s: float
    low_s: float
    high_s: float
    compute_s: float
    read_s: float
    read_bytes: float
    passes: int


@dataclass(frozen=True, slots=True)
class _Work:
    """Seconds of a prompt's parts: arithmetic of experts and of the rest, and reading."""

    experts_s: float
    rest_s: float
    read_s: float
    first_read_s: float
    long: bool

    def total_s(self, compute: float = 1.0, disk: float = 1.0) -> float:
        """With arithmetic and the disk so many times as fast."""
        experts, rest = self.experts_s / compute, self.rest_s / compute
        read, first = self.read_s / disk, self.first_read_s / disk
        if self.long:
            return first + max(experts + rest, read - first)
        return rest + max(experts, read)


def first_token(
    demand: Demand, machine: Speeds, disk: DiskSpeed, plan: MemoryPlan, tokens: int
) -> FirstToken:
    """Foresee what a prompt of so many tokens takes, memory divided as in ``plan``."""
    passes = -(-tokens // pass_tokens_of(demand, plan))
    layers = max(demand.num_moe_layers, 1)
    unused = 1 - demand.num_experts_per_tok / demand.num_experts if demand.num_experts else 0.0
    asked = plan.total_expert_bytes * (1 - unused**tokens)
    kept = min(plan.experts_bytes, plan.total_expert_bytes)
    again = max(asked - kept, 0.0)  # by each pass but the first
    n_bytes = asked + (passes - 1) * again
    waits = disk.latency_s * demand.num_moe_layers * passes
    work = _Work(
        *_compute_s(demand, machine, tokens),
        read_s=waits + n_bytes / disk.bytes_per_s,
        first_read_s=n_bytes / layers / disk.bytes_per_s,
        long=tokens > CHUNK_TOKENS and not plan.fits,
    )
    return FirstToken(
        tokens=tokens,
        ttft_s=work.total_s(),
        low_s=work.total_s(1 + COMPUTE_VARIES, 1 + DISK_VARIES),
        high_s=work.total_s(1 - COMPUTE_VARIES, 1 - DISK_VARIES),
        compute_s=work.experts_s + work.rest_s,
        read_s=work.read_s,
        read_bytes=n_bytes,
        passes=passes,
    )


def pass_tokens_of(demand: Demand, plan: MemoryPlan) -> int:
    """Most tokens of a pass, in whole chunks, as ``Session`` has them."""
    if plan.fits or not demand.hidden_size or not demand.num_moe_layers:
        return _FOREVER
    return long_pass_tokens(plan, demand.num_moe_layers, demand.hidden_size, CHUNK_TOKENS)


def _compute_s(demand: Demand, machine: Speeds, tokens: int) -> tuple[float, float]:
    """Arithmetic of the routed experts, and of all else."""
    batch = machine.batch_bytes_per_s
    experts = sum(n_bytes / batch[name] for name, n_bytes in demand.expert_bytes.items())
    output = demand.output_bytes
    dense = sum(
        (n_bytes - output.get(name, 0)) / batch[name]
        for name, n_bytes in demand.dense_bytes.items()
    )
    rest = (
        tokens * dense / PRODUCTS + -(-tokens // CHUNK_TOKENS) * demand.num_layers * machine.layer_s
    )
    rest += sum(n_bytes / machine.kernel_bytes_per_s[name] for name, n_bytes in output.items())
    if demand.pair_macs:
        rest += demand.pair_macs * tokens**2 / 2 / machine.attention_macs_per_s
    return tokens * experts / PRODUCTS, rest
