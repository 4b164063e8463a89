"""What one token asks of a machine, read off a file's header.

Owns which bytes a token reads. Knows nothing of the machine.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from moestream.backends import AttentionShape, whole_blocks
from moestream.choices import KVType
from moestream.gguf import GGUFHeader, TensorInfo
from moestream.layers.cache import state_bytes
from moestream.layers.weights import EMBEDDING, OUTPUT, read_by_row
from moestream.models import read_config
from moestream.models.part import names_of
from moestream.quants import multiplies
from moestream.streaming.store import is_expert_weight, used_tensors


@dataclass(frozen=True, slots=True)
class Demand:
    """Of one token: bytes by quantisation type, and how they are spread over layers."""

    dense_bytes: Mapping[str, int]
    expert_bytes: Mapping[str, int]
    """Of the routed experts of all layers."""
    num_layers: int
    num_moe_layers: int
    num_experts: int
    num_experts_per_tok: int
    kv_bytes: int
    """That one token adds to the KV cache, and that every later one reads."""
    state_bytes: int = 0
    """Of recurrent states, which every token reads and writes."""
    output_bytes: Mapping[str, int] = field(default_factory=dict)
    """Of the dense ones, what makes logits: of a prompt, its last token alone."""
    pair_macs: int = 0
    """Multiplications of attention for a token and one that it sees, of all layers."""
    hidden_size: int = 0
    choice_bytes: int = 0
    """For a moment, to choose among what is remembered, a token."""

    def context_bytes(self, tokens: int) -> int:
        """Memory that a context of so many tokens takes."""
        return self.state_bytes + whole_blocks(tokens) * self.kv_bytes + self.choice_bytes * tokens

    @property
    def one_expert_bytes(self) -> float:
        """Bytes of one routed expert, on average over layers."""
        chosen = self.num_moe_layers * self.num_experts_per_tok
        return sum(self.expert_bytes.values()) / chosen if chosen else 0.0


def _share(info: TensorInfo, chosen: int) -> float:
    """What a token reads of a tensor that is none of the routed experts' own."""
    if info.name.endswith("_chexps.weight"):  # smaller experts, which groups of others share
        return min(chosen / info.shape[0], 1.0)
    if info.name.endswith("ffn_gate_tid2eid.weight"):  # experts by token
        return 1 / info.shape[0]
    return 1.0


def read_demand(
    file: GGUFHeader,
    cache_type_k: KVType = "f16",
    cache_type_v: KVType = "f16",
    *,
    part: range | None = None,
) -> Demand:
    """Add up what a token reads; ``part`` are the layers of one machine of several.

    Raises:
        ModelFormatError, UnsupportedModelError: the header is not that of a model that can run.
    """
    config = read_config(file)
    dense: Counter[str] = Counter()
    experts: Counter[str] = Counter()
    output: Counter[str] = Counter()
    moe_layers, by_row = set(), read_by_row(file)
    part = part or range(config.num_layers)
    here = names_of(part, file.tensors)
    for info in used_tensors(file):
        if info.name not in here:
            continue
        if is_expert_weight(info.name):
            moe_layers.add(info.name.split(".")[1])
            chosen = info.n_bytes // info.shape[0] * config.num_experts_per_tok
            experts[info.type.name] += chosen
        elif info.name not in by_row:
            # Vectors are floats once they are read.
            kind = info.type.name if multiplies(info.type) else "F32"
            dense[kind] += round(info.n_bytes * _share(info, config.num_experts_per_tok))
            if info.name in (EMBEDDING, OUTPUT):
                output[info.type.name] += info.n_bytes
    # Behind those of all layers there may be more, which the last ones count.
    stop = part.stop if part.stop < config.num_layers else None
    shapes, kv_types = config.state_shapes()[part.start : stop], (cache_type_k, cache_type_v)
    fixed = state_bytes(shapes, 0, kv_types)
    return Demand(
        dense_bytes=dict(dense),
        expert_bytes=dict(experts),
        num_layers=len(part),
        num_moe_layers=len(moe_layers),
        num_experts=config.num_experts,
        num_experts_per_tok=config.num_experts_per_tok,
        kv_bytes=state_bytes(shapes, 1, kv_types) - fixed,
        state_bytes=fixed,
        output_bytes=dict(output),
        pair_macs=sum(
            config.num_heads * (shape.key_dim + (shape.value_dim or shape.key_dim))
            for shape in shapes
            if isinstance(shape, AttentionShape) and shape.heads
        ),
        hidden_size=config.row_size,
        choice_bytes=config.choice_bytes,
    )
