"""Golden models of DeepSeek-V4: windows and compressed rows around streams that are mixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import gguf

from golden.files import EPSILON, VOCAB, TensorSpec
from golden.glm5_next import STREAMS, add_streams, mixed_streams
from golden.keys import Indexer, add_head_dim, add_shared_experts, add_sizes, add_yarn
from golden.parts import INDEX_HEADS, mixture, narrow_queries, norms
from golden.recipe import EXPERTS, HEADS, Recipe

WINDOW, GROUPS, HASHED = 9, 2, 3
INDEXER = Indexer(5)
SQRT_SOFTPLUS = 4  # of llama.cpp's ways to gate, which gguf has no name for
UNQUANTISED = ("hc_", "indexer", "compressor", "attn_kv.", "attn_output_a")
"""What llama.cpp's quantiser leaves as it is, and would not write as F32 either."""


@dataclass(frozen=True, slots=True)
class DeepSeek4(Recipe):
    """`ratios` are positions of a stretch, layer by layer; two of 128 end in a long text."""

    hidden: int = 32
    ratios: tuple[int, ...] = field(kw_only=True)
    indexer: Indexer = INDEXER
    dim: int = 32
    turned: int = 8
    rank: int = 16
    output_rank: int = 12
    unquantised: tuple[str, ...] = UNQUANTISED
    long_tokens: int = 0

    @property
    def layers(self) -> int:
        """How many."""
        return len(self.ratios)

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        attention = f"{self.arch}.attention"
        writer.add_context_length(512)
        add_sizes(writer, self, self.width, kv_heads=1)
        add_head_dim(writer, self.dim)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_q_lora_rank(self.rank)
        writer.add_rope_dimension_count(self.turned)
        writer.add_rope_freq_base(1000.0)
        add_yarn(writer)
        writer.add_sliding_window(WINDOW)
        add_shared_experts(writer, self, shared=1)
        writer.add_uint32(f"{self.arch}.expert_gating_func", SQRT_SOFTPLUS)
        writer.add_expert_weights_norm(True)
        writer.add_expert_weights_scale(1.5)
        writer.add_swiglu_clamp_exp([0.8] * self.layers)
        self.indexer.add(writer)
        writer.add_array(f"{attention}.compress_ratios", list(self.ratios))
        writer.add_float32(f"{attention}.compress_rope_freq_base", 4000.0)
        writer.add_uint32(f"{attention}.output_group_count", GROUPS)
        writer.add_uint32(f"{attention}.output_lora_rank", self.output_rank)
        writer.add_uint32(f"{self.arch}.hash_layer_count", HASHED)
        add_streams(writer, self.arch)

    def outside(self) -> Iterator[TensorSpec]:
        """Tensors of no layer."""
        yield from Recipe.outside(self)
        wide = STREAMS * self.hidden
        yield "output_hc_fn.weight", (STREAMS, wide), wide**-0.5
        yield "output_hc_base.weight", (STREAMS,), 0.5
        yield "output_hc_scale.weight", (1,), 1.0

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Streams, attention, experts that a router or a table chooses."""
        yield from mixed_streams(self.hidden)
        yield from norms(self.hidden, "attn_norm", "ffn_norm")
        yield from self._attention()
        if ratio := self.ratios[layer]:
            yield from self._compressor("attn", ratio, self.dim)
        if ratio == 4:
            length = self.indexer.length
            yield from self._compressor("indexer", ratio, length)
            yield "indexer.proj.weight", (INDEX_HEADS, self.hidden), self.hidden**-0.5
            yield "indexer.attn_q_b.weight", (INDEX_HEADS * length, self.rank), self.rank**-0.5
        hashed = layer < HASHED
        yield from mixture(self, bias=0.0 if hashed else 0.1, shared=self.width)
        if hashed:
            yield "ffn_gate_tid2eid.weight", (VOCAB, self.used), EXPERTS

    def _attention(self) -> Iterator[TensorSpec]:
        hidden, all_heads = self.hidden, HEADS * self.dim
        yield "attn_sinks.weight", (HEADS,), 1.0
        yield from narrow_queries(hidden, self.rank, all_heads)
        yield "attn_kv.weight", (self.dim, hidden), hidden**-0.5
        yield "attn_kv_a_norm.weight", (self.dim,), 0.3
        group, narrow = all_heads // GROUPS, GROUPS * self.output_rank
        yield "attn_output_a.weight", (narrow, group), group**-0.5
        yield "attn_output_b.weight", (hidden, narrow), narrow**-0.5

    def _compressor(self, name: str, ratio: int, dim: int) -> Iterator[TensorSpec]:
        width, std = dim * (2 if ratio == 4 else 1), self.hidden**-0.5
        yield f"{name}_compressor_kv.weight", (width, self.hidden), std
        yield f"{name}_compressor_gate.weight", (width, self.hidden), std
        yield f"{name}_compressor_ape.weight", (ratio, width), 0.5
        yield f"{name}_compressor_norm.weight", (dim,), 0.3


WHOLE = {"hidden": 64, "rank": 32, "output_rank": 32, "width": 32, "used": EXPERTS}
DEEPSEEK4_MODELS: tuple[DeepSeek4, ...] = (
    DeepSeek4("deepseek4", "deepseek4", 841, ratios=(0, 4, 128) * 3, long_tokens=300),
    DeepSeek4(
        "deepseek4-q8_0",
        "deepseek4",
        842,
        ("Q8_0",),
        ratios=(0, 4, 0, 4),
        indexer=Indexer(64),
        **WHOLE,
    ),
)
