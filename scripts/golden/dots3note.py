"""Golden models of dots3.note: sparse latent attention, and latent attention over a window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, TensorSpec, is_f32
from golden.keys import Indexer, add_shared_experts, add_sigmoid, add_sizes
from golden.parts import (
    indexer,
    latent_heads,
    latent_row,
    mixture,
    narrow_queries,
    norms,
    swiglu,
)
from golden.recipe import EXPERTS, OfKinds

RANK, TURNED = 32, 8
FULL, WINDOWED = (32, 12, 20), (24, 8, 12)
"""Latent, plain numbers of a head, and numbers of its value."""


@dataclass(frozen=True, slots=True)
class GoldenDots3Note(OfKinds):
    """`kinds`: W, a window is seen, or F, everything. The first layer is dense."""

    hidden: int = 32
    used: int = 4
    lead: int = 1
    full: tuple[int, int, int] = FULL
    window: tuple[int, int, int] = WINDOWED

    @property
    def windowed(self) -> list[bool]:
        """Layer by layer, whether a window is seen."""
        return [kind == "W" for kind in self.kinds]

    def heads(self, layer: int) -> int:
        """More where a window is seen."""
        return 6 if self.windowed[layer] else 4

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        (latent, plain, value), (few, short, small) = self.full, self.window
        heads = [self.heads(layer) for layer in range(self.layers)]
        add_sizes(writer, self, 3 * self.width, heads, 1)
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
        add_shared_experts(writer, self, shared=1)
        add_sigmoid(writer, 1.8)
        Indexer(12 if is_f32(self) else 64).add(writer)
        types = [int(not windowed) for windowed in self.windowed]
        writer.add_array(f"{self.arch}.attention.indexer.types", types)

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Both norms, then the rest."""
        yield from norms(self.hidden, "attn_norm", "ffn_norm")
        yield from self._latent(layer)
        if not self.windowed[layer]:
            yield from indexer(self.hidden, RANK)
        if layer:
            yield from mixture(self, bias=0.1, shared=self.width)
        else:
            yield from swiglu(self.hidden, 3 * self.width)

    def _latent(self, layer: int) -> Iterator[TensorSpec]:
        latent, plain, value = self.window if self.windowed[layer] else self.full
        hidden, heads = self.hidden, self.heads(layer)
        yield from narrow_queries(hidden, RANK, heads * (plain + TURNED))
        yield from latent_row(hidden, latent, TURNED)
        yield "attn_k_norm.weight", (TURNED,), 0.3
        yield from latent_heads(heads, latent, plain, value)
        yield "attn_gate.weight", (heads, hidden), hidden**-0.5
        yield "attn_output.weight", (hidden, heads * value), (heads * value) ** -0.5


DOTS3NOTE_MODELS: tuple[GoldenDots3Note, ...] = (
    GoldenDots3Note("dots3note", "dots3note", 681, kinds="WFWFWF"),
    GoldenDots3Note(
        "dots3note-q8_0",
        "dots3note",
        682,
        ("Q8_0",),
        kinds="WFW",
        hidden=64,
        width=32,
        used=EXPERTS,
        full=(32, 32, 24),
        window=(32, 32, 16),
    ),
)
