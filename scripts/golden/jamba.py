"""Golden models of Jamba: Mamba with attention here and there, experts in every other layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, TensorSpec, swiglu

HEADS, KV_HEADS, EXPERTS, CONV = 4, 2, 8, 4


@dataclass(frozen=True, slots=True)
class GoldenJamba:
    """`kinds` says what each layer is: M, Mamba, or A, attention. Every second one has experts."""

    name: str
    seed: int
    kinds: str
    types: tuple[str, ...] = ("F32",)
    hidden: int = 32
    width: int = 16
    used: int = 2
    size: int = 10
    rank: int = 12
    experts: int = EXPERTS
    arch: str = "jamba"

    @property
    def layers(self) -> int:
        """How many."""
        return len(self.kinds)

    @property
    def moe_layers(self) -> list[int]:
        """Every second one."""
        return list(range(1, self.layers, 2))

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self.width)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv([KV_HEADS if kind == "A" else 0 for kind in self.kinds])
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_ssm_conv_kernel(CONV)
        writer.add_ssm_inner_size(2 * self.hidden)
        writer.add_ssm_state_size(self.size)
        writer.add_ssm_time_step_rank(self.rank)
        writer.add_expert_count(self.experts)
        writer.add_expert_used_count(self.used)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        hidden = self.hidden
        yield "token_embd.weight", (VOCAB, hidden), 1.0
        yield "output_norm.weight", (hidden,), 0.3
        yield "output.weight", (VOCAB, hidden), 1.5 * hidden**-0.5
        for layer, kind in enumerate(self.kinds):
            mixer = self._mamba() if kind == "M" else self._attention()
            ffn = self._experts() if layer % 2 else swiglu(hidden, self.width)
            yield f"blk.{layer}.attn_norm.weight", (hidden,), 0.3
            yield f"blk.{layer}.ffn_norm.weight", (hidden,), 0.3
            for name, shape, std in (*mixer, *ffn):
                yield f"blk.{layer}.{name}", shape, std

    def _mamba(self) -> Iterator[TensorSpec]:
        hidden, inner, size, rank = self.hidden, 2 * self.hidden, self.size, self.rank
        yield "ssm_in.weight", (2 * inner, hidden), hidden**-0.5
        yield "ssm_conv1d.weight", (inner, CONV), 0.5
        yield "ssm_conv1d.bias", (inner,), 0.3
        yield "ssm_x.weight", (rank + 2 * size, inner), inner**-0.5
        yield "ssm_dt_norm.weight", (rank,), 0.3
        yield "ssm_b_norm.weight", (size,), 0.3
        yield "ssm_c_norm.weight", (size,), 0.3
        yield "ssm_dt.weight", (inner, rank), 0.4 * rank**-0.5
        yield "ssm_dt.bias", (inner,), 0.5
        yield "ssm_a", (inner, size), 0.5
        yield "ssm_d", (inner,), 0.5
        yield "ssm_out.weight", (hidden, inner), 0.5 * inner**-0.5

    def _attention(self) -> Iterator[TensorSpec]:
        hidden = self.hidden
        key = hidden // HEADS * KV_HEADS
        for name, rows in (("q", hidden), ("k", key), ("v", key)):
            yield f"attn_{name}.weight", (rows, hidden), 0.8 * hidden**-0.5
        yield "attn_output.weight", (hidden, hidden), hidden**-0.5

    def _experts(self) -> Iterator[TensorSpec]:
        yield "ffn_gate_inp.weight", (self.experts, self.hidden), self.hidden**-0.5
        yield from swiglu(self.hidden, self.width, "_exps", self.experts)


BLOCKS = {"hidden": 64, "width": 32, "rank": 32, "size": 16, "used": EXPERTS}
"""Rows of whole blocks, and no choice of experts that rounding could turn."""

JAMBA_MODELS: tuple[GoldenJamba, ...] = (
    GoldenJamba("jamba", 661, "MAMAMA"),
    GoldenJamba("jamba-q8_0", 662, "MMA", ("Q8_0",), **BLOCKS),
)
