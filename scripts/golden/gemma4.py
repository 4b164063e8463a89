"""Golden models of Gemma 4: sliding layers, and one that sees everything, of another shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, TensorSpec


@dataclass(frozen=True, slots=True)
class Gemma4:
    """Two kinds of layers by `sliding`; those that see all have no values of their own."""

    name: str
    seed: int
    types: tuple[str, ...] = ("F32",)
    sliding: tuple[bool, ...] = (True, False, True)
    hidden: int = 64
    heads: int = 4
    kv_heads: tuple[int, int] = (2, 1)  # of sliding layers, of the others
    head_dims: tuple[int, int] = (16, 24)
    intermediate: int = 48
    experts: int = 8
    expert_width: int = 16
    fused: bool = True
    query_norm_mean: float = 0.4  # nothing else scales the scores
    arch: str = "gemma4"

    @property
    def layers(self) -> int:
        """How many."""
        return len(self.sliding)

    @property
    def moe_layers(self) -> list[int]:
        """All or none."""
        return list(range(self.layers)) if self.experts else []

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        sliding_dim, full_dim = self.head_dims
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self.intermediate)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv([self.kv_heads[not sliding] for sliding in self.sliding])
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_key_length(full_dim)
        writer.add_value_length(full_dim)
        writer.add_key_length_swa(sliding_dim)
        writer.add_value_length_swa(sliding_dim)
        writer.add_sliding_window(9)
        writer.add_sliding_window_pattern(list(self.sliding))
        writer.add_shared_kv_layers(0)
        writer.add_embedding_length_per_layer_input(0)
        writer.add_rope_dimension_count(full_dim)
        writer.add_rope_dimension_count_swa(sliding_dim - 4)
        writer.add_rope_freq_base(1000.0)
        writer.add_rope_freq_base_swa(100.0)
        writer.add_final_logit_softcapping(4.0)
        if self.experts:
            writer.add_expert_count(self.experts)
            writer.add_expert_used_count(2)
            writer.add_expert_feed_forward_length(self.expert_width)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        yield "token_embd.weight", (VOCAB, self.hidden), 0.15
        yield "output_norm.weight", (self.hidden,), 0.3
        yield "rope_freqs.weight", (self.head_dims[1] // 2,), 0.3
        for layer, sliding in enumerate(self.sliding):
            parts = (self._attention(sliding), self._dense(), self._experts())
            for name, shape, std in (spec for part in parts for spec in part):
                yield f"blk.{layer}.{name}", shape, std

    def _attention(self, sliding: bool) -> Iterator[TensorSpec]:
        hidden, head_dim = self.hidden, self.head_dims[not sliding]
        query, key = self.heads * head_dim, self.kv_heads[not sliding] * head_dim
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            yield f"{name}.weight", (hidden,), 0.3
        yield "attn_q.weight", (query, hidden), hidden**-0.5
        yield "attn_k.weight", (key, hidden), hidden**-0.5
        if sliding:
            yield "attn_v.weight", (key, hidden), hidden**-0.5
        yield "attn_q_norm.weight", (head_dim,), 0.1
        yield "attn_k_norm.weight", (head_dim,), 0.3
        yield "attn_output.weight", (hidden, query), query**-0.5
        yield "layer_output_scale.weight", (1,), 0.3

    def _dense(self) -> Iterator[TensorSpec]:
        hidden, width = self.hidden, self.intermediate
        yield "ffn_gate.weight", (width, hidden), hidden**-0.5
        yield "ffn_up.weight", (width, hidden), hidden**-0.5
        yield "ffn_down.weight", (hidden, width), width**-0.5

    def _experts(self) -> Iterator[TensorSpec]:
        hidden, width = self.hidden, self.expert_width
        if not self.experts:
            return
        yield "ffn_gate_inp.weight", (self.experts, hidden), 1.0
        yield "ffn_gate_inp.scale", (hidden,), 1.0
        for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
            yield f"{name}.weight", (hidden,), 0.3
        if self.fused:
            yield "ffn_gate_up_exps.weight", (self.experts, 2 * width, hidden), hidden**-0.5
        else:
            yield "ffn_gate_exps.weight", (self.experts, width, hidden), hidden**-0.5
            yield "ffn_up_exps.weight", (self.experts, width, hidden), hidden**-0.5
        yield "ffn_down_exps.weight", (self.experts, hidden, width), width**-0.5
        yield "ffn_down_exps.scale", (self.experts,), 0.5


MODELS = (
    Gemma4("gemma4", 104),
    Gemma4("gemma4-dense", 106, experts=0, sliding=(True, True, False)),
    Gemma4(
        "gemma4-q8_0", 324, ("Q8_0", "Q4_0"), intermediate=64, expert_width=32,
        head_dims=(16, 32), kv_heads=(2, 2), fused=False,
    ),
)  # fmt: skip
