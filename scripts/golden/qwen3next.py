"""Golden models of Qwen3-Next and Qwen3.5-MoE: delta nets beside gated attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, Model, TensorSpec, swiglu

HIDDEN, HEADS, KV_HEADS, EXPERTS, KEY_HEADS, VALUE_HEADS, CONV = 64, 4, 2, 8, 2, 4, 4


@dataclass(frozen=True, slots=True)
class GoldenHybrid:
    """`joined` is the older layout, in which projections lie together as they were trained.

    `listed` says layer by layer which are recurrent, instead of every so many.
    `nextn` appends a layer that predicts a further token, which is not run.
    """

    name: str
    arch: str
    seed: int
    types: tuple[str, ...] = ("F32",)
    joined: bool = False
    listed: bool = False
    nextn: bool = False
    layers: int = 3
    head_dim: int = 24
    width: int = 16
    shared_width: int = 24
    dim: int = 16
    experts: int = EXPERTS

    @property
    def moe_layers(self) -> list[int]:
        """All."""
        return list(range(self.layers))

    @property
    def recurrent(self) -> list[bool]:
        """Every other layer attends; the layer that is not run does, too."""
        return [layer % 2 == 0 for layer in range(self.layers)]

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        writer.add_embedding_length(HIDDEN)
        writer.add_block_count(self.layers + self.nextn)
        if self.nextn:
            writer.add_nextn_predict_layers(1)
        writer.add_feed_forward_length(40)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_rope_freq_base(1000.0)
        writer.add_rope_dimension_count(self.head_dim // 2)
        if self.arch == "qwen35moe":
            pairs = self.head_dim // 4
            sections = [pairs // 3 + (i < pairs % 3) for i in range(3)]
            writer.add_rope_dimension_sections([*sections, 0])
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(self.width)
        writer.add_expert_shared_feed_forward_length(self.shared_width)
        writer.add_ssm_conv_kernel(CONV)
        writer.add_ssm_state_size(self.dim)
        writer.add_ssm_group_count(KEY_HEADS)
        writer.add_ssm_time_step_rank(VALUE_HEADS)
        writer.add_ssm_inner_size(VALUE_HEADS * self.dim)
        if self.listed:
            recurrent = [*self.recurrent, *[False] * self.nextn]
            writer.add_array(f"{self.arch}.attention.recurrent_layers", recurrent)
        else:
            writer.add_full_attention_interval(2)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        yield "token_embd.weight", (VOCAB, HIDDEN), 1.0
        yield "output_norm.weight", (HIDDEN,), 0.3
        yield "output.weight", (VOCAB, HIDDEN), 1.5 * HIDDEN**-0.5
        for layer, recurrent in enumerate([*self.recurrent, *[False] * self.nextn]):
            mixer = self._delta_net() if recurrent else self._attention()
            for name, shape, std in (*mixer, *self._experts()):
                yield f"blk.{layer}.{name}", shape, std
        if self.nextn:
            yield f"blk.{self.layers}.nextn.eh_proj.weight", (HIDDEN, 2 * HIDDEN), 0.1
            yield f"blk.{self.layers}.nextn.enorm.weight", (HIDDEN,), 0.3
            yield f"blk.{self.layers}.nextn.hnorm.weight", (HIDDEN,), 0.3

    def _attention(self) -> Iterator[TensorSpec]:
        query, key, std = HEADS * self.head_dim, KV_HEADS * self.head_dim, 0.8 * HIDDEN**-0.5
        yield "attn_norm.weight", (HIDDEN,), 0.3
        yield "attn_q.weight", (2 * query, HIDDEN), std
        yield "attn_k.weight", (key, HIDDEN), std
        yield "attn_v.weight", (key, HIDDEN), std
        yield "attn_q_norm.weight", (self.head_dim,), 0.3
        yield "attn_k_norm.weight", (self.head_dim,), 0.3
        yield "attn_output.weight", (HIDDEN, query), 2 * query**-0.5

    def _delta_net(self) -> Iterator[TensorSpec]:
        keys, values, std = KEY_HEADS * self.dim, VALUE_HEADS * self.dim, HIDDEN**-0.5
        yield "attn_norm.weight", (HIDDEN,), 0.3
        if self.joined:
            yield "ssm_in.weight", (2 * keys + 2 * values, HIDDEN), std
        else:
            yield "attn_qkv.weight", (2 * keys + values, HIDDEN), std
            yield "attn_gate.weight", (values, HIDDEN), std
        if self.arch == "qwen3next":
            yield "ssm_ba.weight", (2 * VALUE_HEADS, HIDDEN), std
        else:
            yield "ssm_alpha.weight", (VALUE_HEADS, HIDDEN), std
            yield "ssm_beta.weight", (VALUE_HEADS, HIDDEN), std
        yield "ssm_conv1d.weight", (2 * keys + values, CONV), 0.5
        yield "ssm_dt.bias", (VALUE_HEADS,), 0.5
        yield "ssm_a", (VALUE_HEADS,), 0.3
        yield "ssm_norm.weight", (self.dim,), 0.3
        yield "ssm_out.weight", (HIDDEN, values), values**-0.5

    def _experts(self) -> Iterator[TensorSpec]:
        yield "post_attention_norm.weight", (HIDDEN,), 0.3
        yield "ffn_gate_inp.weight", (EXPERTS, HIDDEN), HIDDEN**-0.5
        yield from swiglu(HIDDEN, self.width, "_exps", EXPERTS)
        yield from swiglu(HIDDEN, self.shared_width, "_shexp")
        yield "ffn_gate_inp_shexp.weight", (HIDDEN,), HIDDEN**-0.5


WIDE = {"width": 32, "shared_width": 32, "dim": 32, "head_dim": 32}
QWEN3NEXT_MODELS: tuple[Model, ...] = (
    GoldenHybrid("qwen3next", "qwen3next", 201, nextn=True),
    GoldenHybrid("qwen3next-joined", "qwen3next", 202, joined=True, listed=True),
    GoldenHybrid("qwen35moe", "qwen35moe", 203, listed=True),
    GoldenHybrid("qwen3next-q8_0", "qwen3next", 369, ("Q8_0", "Q5_1"), **WIDE),
    GoldenHybrid("qwen35moe-mxfp4", "qwen35moe", 336, ("MXFP4", "Q8_0", "Q4_0"), **WIDE),
)
