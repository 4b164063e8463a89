"""Golden models of Qwen3-Next and Qwen3.5-MoE: delta nets beside gated attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, Model, TensorSpec
from golden.keys import add_experts, add_head_dim, add_rope_sections
from golden.parts import head_norms, mixture, norms
from golden.recipe import CONV, HEADS, KV_HEADS, Counted

KEY_HEADS, VALUE_HEADS = 2, 4


@dataclass(frozen=True, slots=True)
class GoldenHybrid(Counted):
    """`joined` is the older layout, in which projections lie together as they were trained.

    `listed` says layer by layer which are recurrent, instead of every so many.
    `nextn` appends a layer that predicts a further token, which is not run.
    """

    used: int = 2
    joined: bool = False
    listed: bool = False
    nextn: bool = False
    head_dim: int = 24
    shared: int = 24
    dim: int = 16
    every: int = 2

    @property
    def recurrent(self) -> list[bool]:
        """The last of `every` attends; the layer that is not run does, too."""
        return [(layer + 1) % self.every != 0 for layer in range(self.layers)]

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers + self.nextn)
        if self.nextn:
            writer.add_nextn_predict_layers(1)
        writer.add_feed_forward_length(40)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        add_head_dim(writer, self.head_dim)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_rope_freq_base(1000.0)
        writer.add_rope_dimension_count(self.head_dim // 2)
        if self.arch in ("qwen35moe", "qwen4exp"):
            add_rope_sections(writer, self.head_dim // 4)
        add_experts(writer, self)
        writer.add_expert_feed_forward_length(self.width)
        writer.add_expert_shared_feed_forward_length(self.shared)
        writer.add_ssm_conv_kernel(CONV)
        writer.add_ssm_state_size(self.dim)
        writer.add_ssm_group_count(KEY_HEADS)
        writer.add_ssm_time_step_rank(VALUE_HEADS)
        writer.add_ssm_inner_size(VALUE_HEADS * self.dim)
        if self.listed:
            recurrent = [*self.recurrent, *[False] * self.nextn]
            writer.add_array(f"{self.arch}.attention.recurrent_layers", recurrent)
        else:
            writer.add_full_attention_interval(self.every)

    def tensors(self) -> Iterator[TensorSpec]:
        """Those of all layers, and of the one that is not run."""
        yield from Counted.tensors(self)
        if self.nextn:
            for name, shape, std in (*self._attention(), *self._experts(), *self._further()):
                yield f"blk.{self.layers}.{name}", shape, std

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """A delta net or attention, and experts."""
        yield from self._delta_net() if self.recurrent[layer] else self._attention()
        yield from self._experts()

    def _further(self) -> Iterator[TensorSpec]:
        yield "nextn.eh_proj.weight", (self.hidden, 2 * self.hidden), 0.1
        yield from norms(self.hidden, "nextn.enorm", "nextn.hnorm")

    def _attention(self) -> Iterator[TensorSpec]:
        query, key, std = HEADS * self.head_dim, KV_HEADS * self.head_dim, 0.8 * self.hidden**-0.5
        yield from norms(self.hidden, "attn_norm")
        yield "attn_q.weight", (2 * query, self.hidden), std
        yield "attn_k.weight", (key, self.hidden), std
        yield "attn_v.weight", (key, self.hidden), std
        yield from head_norms(self.head_dim, self.head_dim)
        yield "attn_output.weight", (self.hidden, query), 2 * query**-0.5

    def _delta_net(self) -> Iterator[TensorSpec]:
        keys, values, std = KEY_HEADS * self.dim, VALUE_HEADS * self.dim, self.hidden**-0.5
        yield from norms(self.hidden, "attn_norm")
        if self.joined:
            yield "ssm_in.weight", (2 * keys + 2 * values, self.hidden), std
        else:
            yield "attn_qkv.weight", (2 * keys + values, self.hidden), std
            yield "attn_gate.weight", (values, self.hidden), std
        if self.arch == "qwen3next":
            yield "ssm_ba.weight", (2 * VALUE_HEADS, self.hidden), std
        else:
            yield "ssm_alpha.weight", (VALUE_HEADS, self.hidden), std
            yield "ssm_beta.weight", (VALUE_HEADS, self.hidden), std
        yield "ssm_conv1d.weight", (2 * keys + values, CONV), 0.5
        yield "ssm_dt.bias", (VALUE_HEADS,), 0.5
        yield "ssm_a", (VALUE_HEADS,), 0.3
        yield "ssm_norm.weight", (self.dim,), 0.3
        yield "ssm_out.weight", (self.hidden, values), values**-0.5

    def _experts(self) -> Iterator[TensorSpec]:
        yield from norms(self.hidden, "post_attention_norm")
        yield from mixture(self, shared=self.shared)
        yield "ffn_gate_inp_shexp.weight", (self.hidden,), self.hidden**-0.5


WIDE = {"width": 32, "shared": 32, "dim": 32, "head_dim": 32}
QWEN3NEXT_MODELS: tuple[Model, ...] = (
    GoldenHybrid("qwen3next", "qwen3next", 201, nextn=True),
    GoldenHybrid("qwen3next-joined", "qwen3next", 202, joined=True, listed=True),
    GoldenHybrid("qwen35moe", "qwen35moe", 203, listed=True),
    GoldenHybrid("qwen3next-q8_0", "qwen3next", 369, ("Q8_0", "Q5_1"), **WIDE),
    GoldenHybrid("qwen35moe-mxfp4", "qwen35moe", 336, ("MXFP4", "Q8_0", "Q4_0"), **WIDE),
)
