"""Golden models of Gemma 4: sliding layers, and one that sees everything, of another shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import gguf

from golden.files import EPSILON, VOCAB, TensorSpec
from golden.keys import add_experts, add_head_dim, add_sizes
from golden.parts import norms
from golden.recipe import HEADS, OfKinds


@dataclass(frozen=True, slots=True)
class Gemma4(OfKinds):
    """`kinds`: W, a window is seen, or F, everything; such a layer has no values of its own."""

    kinds: str = field(default="WFW", kw_only=True)
    used: int = 2
    tied: float = 0.15
    rope_factors: int = 12  # half of the larger head
    kv_heads: tuple[int, int] = (2, 1)  # of sliding layers, of the others
    head_dims: tuple[int, int] = (16, 24)
    dense_width: int = 48
    fused: bool = True
    dense_widths: tuple[int, ...] = ()  # where they differ by layer
    per_layer: int = 0  # numbers that each layer is given for a token
    shared: int = 0  # layers that attend to an earlier one's keys and values
    query_norm_mean: float = 0.4  # nothing else scales the scores

    @property
    def sliding(self) -> list[bool]:
        """Layer by layer, whether a window is seen."""
        return [kind == "W" for kind in self.kinds]

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        sliding_dim, full_dim = self.head_dims
        kv_heads = [self.kv_heads[not sliding] for sliding in self.sliding]
        add_sizes(writer, self, list(self.dense_widths) or self.dense_width, kv_heads=kv_heads)
        writer.add_layer_norm_rms_eps(EPSILON)
        add_head_dim(writer, full_dim)
        writer.add_key_length_swa(sliding_dim)
        writer.add_value_length_swa(sliding_dim)
        writer.add_sliding_window(9)
        writer.add_sliding_window_pattern(list(self.sliding))
        writer.add_shared_kv_layers(self.shared)
        writer.add_embedding_length_per_layer_input(self.per_layer)
        writer.add_rope_dimension_count(full_dim)
        writer.add_rope_dimension_count_swa(sliding_dim - 4)
        writer.add_rope_freq_base(1000.0)
        writer.add_rope_freq_base_swa(100.0)
        writer.add_final_logit_softcapping(4.0)
        if self.experts:
            add_experts(writer, self)
            writer.add_expert_feed_forward_length(self.width)

    def outside(self) -> Iterator[TensorSpec]:
        """Tensors of no layer, with those of which each layer gets a part."""
        yield from OfKinds.outside(self)
        if size := self.per_layer:
            yield "per_layer_token_embd.weight", (VOCAB, size * self.layers), size**-0.5
            yield "per_layer_model_proj.weight", (size * self.layers, self.hidden), 1.0
            yield "per_layer_proj_norm.weight", (size,), 0.3

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Attention, a dense network, and experts beside it."""
        keyed = layer < self.layers - self.shared
        yield from self._attention(self.sliding[layer], keyed=keyed)
        yield from self._dense(self.dense_widths[layer] if self.dense_widths else self.dense_width)
        if self.per_layer:
            yield "inp_gate.weight", (self.per_layer, self.hidden), self.hidden**-0.5
            yield "proj.weight", (self.hidden, self.per_layer), self.per_layer**-0.5
            yield from norms(self.hidden, "post_norm")
        if self.experts:
            yield from self._experts()

    def _attention(self, sliding: bool, *, keyed: bool) -> Iterator[TensorSpec]:
        hidden, head_dim = self.hidden, self.head_dims[not sliding]
        query, key = HEADS * head_dim, self.kv_heads[not sliding] * head_dim
        yield from norms(hidden, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        yield "attn_q.weight", (query, hidden), hidden**-0.5
        if keyed:
            yield "attn_k.weight", (key, hidden), hidden**-0.5
        if keyed and (sliding or self.per_layer):
            yield "attn_v.weight", (key, hidden), hidden**-0.5
        yield "attn_q_norm.weight", (head_dim,), 0.1
        if keyed:
            yield "attn_k_norm.weight", (head_dim,), 0.3
        yield "attn_output.weight", (hidden, query), query**-0.5
        yield "layer_output_scale.weight", (1,), 0.3

    def _dense(self, width: int) -> Iterator[TensorSpec]:
        hidden = self.hidden
        yield "ffn_gate.weight", (width, hidden), hidden**-0.5
        yield "ffn_up.weight", (width, hidden), hidden**-0.5
        yield "ffn_down.weight", (hidden, width), width**-0.5

    def _experts(self) -> Iterator[TensorSpec]:
        hidden, width = self.hidden, self.width
        yield "ffn_gate_inp.weight", (self.experts, hidden), 1.0
        yield "ffn_gate_inp.scale", (hidden,), 1.0
        yield from norms(hidden, "pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2")
        if self.fused:
            yield "ffn_gate_up_exps.weight", (self.experts, 2 * width, hidden), hidden**-0.5
        else:
            yield "ffn_gate_exps.weight", (self.experts, width, hidden), hidden**-0.5
            yield "ffn_up_exps.weight", (self.experts, width, hidden), hidden**-0.5
        yield "ffn_down_exps.weight", (self.experts, hidden, width), width**-0.5
        yield "ffn_down_exps.scale", (self.experts,), 0.5


MODELS = (
    Gemma4("gemma4", "gemma4", 104),
    Gemma4("gemma4-dense", "gemma4", 106, experts=0, kinds="WWF"),
    Gemma4(
        "gemma4-q8_0", "gemma4", 324, ("Q8_0", "Q4_0"), dense_width=64, width=32,
        head_dims=(16, 32), rope_factors=16, kv_heads=(2, 2), fused=False,
    ),
    Gemma4(
        "gemma4-e", "gemma4", 107, experts=0, kinds="WWWFWFWWF", shared=3, per_layer=12, hidden=48,
        dense_widths=(40,) * 6 + (80,) * 3,
    ),
    Gemma4(
        "gemma4-e-q8_0", "gemma4", 108, ("Q8_0",), experts=0, kinds="WFWFWF", shared=2,
        per_layer=32, hidden=64, dense_widths=(64,) * 4 + (128,) * 2,
        head_dims=(32, 32), rope_factors=16, kv_heads=(1, 1),
    ),
)  # fmt: skip
