"""Golden models of dots3.note: sparse latent attention, and latent attention over a window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, TensorSpec, is_f32, swiglu

EXPERTS, RANK, TURNED = 8, 32, 8
INDEX_HEADS, INDEX = 12, 64
FULL, WINDOWED = (32, 12, 20), (24, 8, 12)
"""Latent, plain numbers of a head, and numbers of its value."""


@dataclass(frozen=True, slots=True)
class GoldenDots3Note:
    """`windowed` says layer by layer which see a window. The first layer is dense."""

    name: str
    seed: int
    windowed: tuple[bool, ...]
    types: tuple[str, ...] = ("F32",)
    hidden: int = 32
    width: int = 16
    used: int = 4
    full: tuple[int, int, int] = FULL
    window: tuple[int, int, int] = WINDOWED
    experts: int = EXPERTS
    arch: str = "dots3note"

    @property
    def layers(self) -> int:
        """How many."""
        return len(self.windowed)

    @property
    def moe_layers(self) -> list[int]:
        """All but the first."""
        return list(range(1, self.layers))

    def heads(self, layer: int) -> int:
        """More where a window is seen."""
        return 6 if self.windowed[layer] else 4

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        (latent, plain, value), (few, short, small) = self.full, self.window
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(3 * self.width)
        writer.add_head_count([self.heads(layer) for layer in range(self.layers)])
        writer.add_head_count_kv(1)
        writer.add_key_length(latent + TURNED)
        writer.add_value_length(latent)
        writer.add_key_length_swa(few + TURNED)
        writer.add_value_length_swa(few)
        writer.add_key_length_mla(plain + TURNED)
        writer.add_value_length_mla(value)
        writer.add_q_lora_rank(RANK)
        writer.add_kv_lora_rank(latent)
        for key, number in (("key_length_mla", short + TURNED), ("value_length_mla", small)):
            writer.add_uint32(f"{self.arch}.attention.{key}_swa", number)
        writer.add_uint32(f"{self.arch}.attention.kv_lora_rank_swa", few)
        writer.add_rope_dimension_count(TURNED)
        writer.add_rope_freq_base(1000.0)
        writer.add_rope_freq_base_swa(500.0)
        writer.add_sliding_window(9)
        writer.add_sliding_window_pattern(list(self.windowed))
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_leading_dense_block_count(1)
        writer.add_expert_count(self.experts)
        writer.add_expert_used_count(self.used)
        writer.add_expert_shared_count(1)
        writer.add_expert_feed_forward_length(self.width)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_expert_weights_norm(True)
        writer.add_expert_weights_scale(1.8)
        writer.add_indexer_head_count(INDEX_HEADS)
        writer.add_indexer_key_length(INDEX)
        writer.add_indexer_top_k(12 if is_f32(self) else 64)
        types = [int(not windowed) for windowed in self.windowed]
        writer.add_array(f"{self.arch}.attention.indexer.types", types)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        hidden = self.hidden
        yield "token_embd.weight", (VOCAB, hidden), 1.0
        yield "output_norm.weight", (hidden,), 0.3
        yield "output.weight", (VOCAB, hidden), 1.5 * hidden**-0.5
        for layer, windowed in enumerate(self.windowed):
            ffn = self._experts() if layer else swiglu(hidden, 3 * self.width)
            index = () if windowed else self._index()
            yield f"blk.{layer}.attn_norm.weight", (hidden,), 0.3
            yield f"blk.{layer}.ffn_norm.weight", (hidden,), 0.3
            for name, shape, std in (*self._latent(layer), *index, *ffn):
                yield f"blk.{layer}.{name}", shape, std

    def _latent(self, layer: int) -> Iterator[TensorSpec]:
        latent, plain, value = self.window if self.windowed[layer] else self.full
        hidden, heads = self.hidden, self.heads(layer)
        yield "attn_q_a.weight", (RANK, hidden), hidden**-0.5
        yield "attn_q_a_norm.weight", (RANK,), 0.3
        yield "attn_q_b.weight", (heads * (plain + TURNED), RANK), 0.5 * RANK**-0.5
        yield "attn_kv_a_mqa.weight", (latent + TURNED, hidden), hidden**-0.5
        yield "attn_kv_a_norm.weight", (latent,), 0.3
        yield "attn_k_norm.weight", (TURNED,), 0.3
        yield "attn_k_b.weight", (heads, latent, plain), 0.5 * latent**-0.5
        yield "attn_v_b.weight", (heads, value, latent), 0.5 * latent**-0.5
        yield "attn_gate.weight", (heads, hidden), hidden**-0.5
        yield "attn_output.weight", (hidden, heads * value), (heads * value) ** -0.5

    def _index(self) -> Iterator[TensorSpec]:
        yield "indexer.k_norm.weight", (INDEX,), 0.3
        yield "indexer.k_norm.bias", (INDEX,), 0.3
        yield "indexer.proj.weight", (INDEX_HEADS, self.hidden), self.hidden**-0.5
        yield "indexer.attn_k.weight", (INDEX, self.hidden), self.hidden**-0.5
        yield "indexer.attn_q_b.weight", (INDEX_HEADS * INDEX, RANK), RANK**-0.5

    def _experts(self) -> Iterator[TensorSpec]:
        hidden = self.hidden
        yield "ffn_gate_inp.weight", (self.experts, hidden), hidden**-0.5
        yield "exp_probs_b.bias", (self.experts,), 0.1
        yield from swiglu(hidden, self.width, "_exps", self.experts)
        yield from swiglu(hidden, self.width, "_shexp")


DOTS3NOTE_MODELS: tuple[GoldenDots3Note, ...] = (
    GoldenDots3Note("dots3note", 681, (True, False) * 3),
    GoldenDots3Note(
        "dots3note-q8_0",
        682,
        (True, False, True),
        ("Q8_0",),
        hidden=64,
        width=32,
        used=EXPERTS,
        full=(32, 32, 24),
        window=(32, 32, 16),
    ),
)
