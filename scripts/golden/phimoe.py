"""Golden models of Phi-3.5-MoE: biases everywhere, and RoPE factors for two lengths of context."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, TensorSpec, swiglu


@dataclass(frozen=True, slots=True)
class PhiMoE:
    """`original_context` decides which factors are used: the tests' contexts hold 128 tokens."""

    name: str
    seed: int
    types: tuple[str, ...] = ("F32",)
    original_context: int = 64
    layers: int = 3
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 24
    experts: int = 8
    arch: str = "phimoe"

    @property
    def moe_layers(self) -> list[int]:
        """All."""
        return list(range(self.layers))

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        writer.add_rope_scaling_orig_ctx_len(self.original_context)
        writer.add_embedding_length(self.hidden)
        writer.add_feed_forward_length(self.intermediate)
        writer.add_block_count(self.layers)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_rope_dimension_count(self.hidden // self.heads)
        writer.add_rope_freq_base(1000.0)
        writer.add_sliding_window(8)  # which nobody heeds
        writer.add_rope_scaling_attn_factors(1.2)
        writer.add_expert_used_count(2)
        writer.add_expert_count(self.experts)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        hidden, pairs = self.hidden, self.hidden // self.heads // 2
        yield "token_embd.weight", (VOCAB, hidden), 1.0
        yield from _norm("output_norm", hidden)
        yield "output.weight", (VOCAB, hidden), 1.5 * hidden**-0.5
        yield "output.bias", (VOCAB,), 1.0
        yield "rope_factors_long.weight", (pairs,), 0.5
        yield "rope_factors_short.weight", (pairs,), 0.5
        for layer in range(self.layers):
            for name, shape, std in self._layer():
                yield f"blk.{layer}.{name}", shape, std

    def _layer(self) -> Iterator[TensorSpec]:
        hidden = self.hidden
        key = self.kv_heads * hidden // self.heads
        yield from _norm("attn_norm", hidden)
        for name, rows in (("q", hidden), ("k", key), ("v", key), ("output", hidden)):
            yield f"attn_{name}.weight", (rows, hidden), 0.8 * hidden**-0.5
            yield f"attn_{name}.bias", (rows,), 0.3
        yield from _norm("ffn_norm", hidden)
        yield "ffn_gate_inp.weight", (self.experts, hidden), hidden**-0.5
        yield from swiglu(hidden, self.intermediate, "_exps", self.experts)


def _norm(name: str, size: int) -> Iterator[TensorSpec]:
    yield f"{name}.weight", (size,), 0.3
    yield f"{name}.bias", (size,), 0.2


MODELS = (
    PhiMoE("phimoe", 111),
    PhiMoE("phimoe-short", 158, original_context=4096),
    PhiMoE("phimoe-q4_1", 100, ("Q4_1", "Q5_0", "Q8_0"), intermediate=32),
)
