"""Golden models of Phi-3.5-MoE: biases everywhere, and RoPE factors for two lengths of context."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, TensorSpec
from golden.parts import mixture
from golden.recipe import HEADS, KV_HEADS, Counted


@dataclass(frozen=True, slots=True)
class PhiMoE(Counted):
    """`original_context` decides which factors are used: the tests' contexts hold 128 tokens."""

    width: int = 24
    used: int = 2
    original_context: int = 64

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        writer.add_rope_scaling_orig_ctx_len(self.original_context)
        writer.add_embedding_length(self.hidden)
        writer.add_feed_forward_length(self.width)
        writer.add_block_count(self.layers)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_rope_dimension_count(self.hidden // HEADS)
        writer.add_rope_freq_base(1000.0)
        writer.add_sliding_window(8)  # which nobody heeds
        writer.add_rope_scaling_attn_factors(1.2)
        writer.add_expert_used_count(self.used)
        writer.add_expert_count(self.experts)

    def outside(self) -> Iterator[TensorSpec]:
        """With biases, and two sets of factors."""
        hidden, pairs = self.hidden, self.hidden // HEADS // 2
        yield "token_embd.weight", (VOCAB, hidden), 1.0
        yield from _norm("output_norm", hidden)
        yield "output.weight", (VOCAB, hidden), 1.5 * hidden**-0.5
        yield "output.bias", (VOCAB,), 1.0
        yield "rope_factors_long.weight", (pairs,), 0.5
        yield "rope_factors_short.weight", (pairs,), 0.5

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Attention and experts."""
        hidden = self.hidden
        key = KV_HEADS * hidden // HEADS
        yield from _norm("attn_norm", hidden)
        for name, rows in (("q", hidden), ("k", key), ("v", key), ("output", hidden)):
            yield f"attn_{name}.weight", (rows, hidden), 0.8 * hidden**-0.5
            yield f"attn_{name}.bias", (rows,), 0.3
        yield from _norm("ffn_norm", hidden)
        yield from mixture(self)


def _norm(name: str, size: int) -> Iterator[TensorSpec]:
    yield f"{name}.weight", (size,), 0.3
    yield f"{name}.bias", (size,), 0.2


MODELS = (
    PhiMoE("phimoe", "phimoe", 111),
    PhiMoE("phimoe-short", "phimoe", 158, original_context=4096),
    PhiMoE("phimoe-q4_1", "phimoe", 100, ("Q4_1", "Q5_0", "Q8_0"), width=32),
)
