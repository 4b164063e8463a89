"""Whether a model would run in so much memory: wholly in it, streamed, poorly, or not at all.

One verdict for all that ask: ``plan``, ``models list`` and ``models info``.
"""

from dataclasses import dataclass
from typing import Literal

from moestream.choices import KVType
from moestream.engine.engine import context_of
from moestream.engine.model_plan import plan_model
from moestream.forecast.demand import read_demand
from moestream.gguf import GGUFHeader
from moestream.models import read_config, used_names
from moestream.streaming.memory import Memory, MemoryPlan, plan_memory

Verdict = Literal["fits", "streams", "below the floor", "too little", "unknown"]

_PROGRAM_BYTES = 56 << 20
"""What a run takes before it has loaded a model, whoever asks. Measured: 42 to 55 MiB."""
CONTEXT_BYTES = 256 << 20
"""For keys and values, where a model's header is not at hand to say what they take."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A verdict, and the memory that running takes at least, in bytes, where that is known.

    ``experts_share`` is the part of the experts that is in memory at once.
    """

    verdict: Verdict
    needed_bytes: int | None = None
    experts_share: float | None = None


def plan_of(
    file: GGUFHeader,
    memory: Memory | None = None,
    *,
    context: int | None = None,
    cache_type_k: KVType = "f16",
    cache_type_v: KVType = "f16",
) -> MemoryPlan:
    """Divide what ``--budget auto`` comes to, here or in so much memory, for a model's file.

    From then on it has those tensors alone that the model uses.
    """
    file.restrict(used_names(file, context or 0))
    demand = read_demand(file, cache_type_k, cache_type_v)
    return plan_model(
        "auto",
        file,
        num_experts_per_tok=demand.num_experts_per_tok,
        kv_bytes=demand.context_bytes(context_of(read_config(file), context)),
        process_bytes=_PROGRAM_BYTES,
        memory=memory,
    )


def verdict_of(plan: MemoryPlan) -> Verdict:
    """What to expect of memory that is divided so."""
    if plan.other_bytes > plan.budget_bytes:
        return "too little"
    if plan.fits:
        return "fits"
    return "streams" if plan.budget_bytes >= plan.least_bytes else "below the floor"


def fit_of(plan: MemoryPlan) -> Fit:
    """The verdict, with what it takes and what share of the experts is in memory."""
    total = plan.total_expert_bytes
    share = min(plan.experts_bytes / total, 1.0) if total else 1.0
    return Fit(verdict_of(plan), plan.least_bytes, share)


def fit_of_sizes(
    memory: Memory | None,
    size_bytes: int | None,
    expert_bytes: int | None,
    expert_bytes_per_token: int | None,
) -> Fit:
    """The same of a model of which sizes alone are known, or None where they are not."""
    if size_bytes is None or expert_bytes is None or expert_bytes_per_token is None:
        return Fit("unknown")
    return fit_of(plan_of_sizes(memory, size_bytes, expert_bytes, expert_bytes_per_token))


def plan_of_sizes(
    memory: Memory | None, size_bytes: int, expert_bytes: int, expert_bytes_per_token: int
) -> MemoryPlan:
    """Divide memory, as ``plan_of`` does, for a model of which sizes alone are known."""
    return plan_memory(
        "auto",
        dense_bytes=size_bytes - expert_bytes,
        kv_bytes=CONTEXT_BYTES,
        floor_bytes=expert_bytes_per_token,
        total_expert_bytes=expert_bytes,
        process_bytes=_PROGRAM_BYTES,
        memory=memory,
    )
