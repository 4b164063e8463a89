"""How a memory budget is divided for a model: what its tensors take, dense and experts."""

from collections.abc import Callable

from moestream.gguf import GGUFHeader
from moestream.layers.weights import read_by_row
from moestream.quants import GGMLQuantizationType, tensor_bytes
from moestream.streaming.memory import Memory, MemoryPlan, plan_memory
from moestream.streaming.store import is_expert_weight, used_tensors

ResidentBytes = Callable[[GGMLQuantizationType, tuple[int, ...]], int]


def plan_model(
    budget: str,
    file: GGUFHeader,
    *,
    resident_bytes: ResidentBytes = tensor_bytes,
    num_experts_per_tok: int,
    kv_bytes: int,
    process_bytes: int,
    context_bytes: int = 0,
    memory: Memory | None = None,
) -> MemoryPlan:
    """Divide a budget for the model in ``file``; see ``plan_memory``.

    ``resident_bytes`` says what a tensor takes in memory, if not as much as in the file.
    """
    sizes = {info.name: resident_bytes(info.type, info.shape) for info in used_tensors(file)}
    for name in read_by_row(file):
        del sizes[name]
    experts = [name for name in sizes if is_expert_weight(name)]
    expert_bytes = sum(sizes[name] for name in experts)
    return plan_memory(
        budget,
        dense_bytes=sum(sizes.values()) - expert_bytes,
        kv_bytes=kv_bytes,
        floor_bytes=num_experts_per_tok
        * sum(sizes[name] // file.tensors[name].shape[0] for name in experts),
        total_expert_bytes=expert_bytes,
        process_bytes=process_bytes,
        context_bytes=context_bytes,
        memory=memory,
    )
