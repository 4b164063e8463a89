"""Golden models with Mamba-2: Nemotron 3 and Granite 4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, TensorSpec, swiglu

HEADS, KV_HEADS, EXPERTS, CONV = 4, 2, 8, 4


@dataclass(frozen=True, slots=True)
class GoldenMamba2:
    """`kinds` says what each layer is: mamba, attention, or, in Nemotron, experts.

    `latent` is the width that experts work in, 0 for all.
    """

    name: str
    arch: str
    seed: int
    kinds: str
    types: tuple[str, ...] = ("F32",)
    hidden: int = 32
    head_dim: int = 24
    width: int = 16
    shared: int = 24
    used: int = 3
    experts: int = EXPERTS
    ssm_heads: int = 8
    ssm_groups: int = 2
    ssm_size: int = 16
    latent: int = 0
    turned: bool = True

    @property
    def layers(self) -> int:
        """How many."""
        return len(self.kinds)

    @property
    def moe_layers(self) -> list[int]:
        """Those of experts, or all."""
        return [i for i, kind in enumerate(self.kinds) if kind == "E" or self.arch[0] == "g"]

    @property
    def inner(self) -> int:
        """Width of all heads of Mamba-2."""
        return 2 * self.hidden

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv([KV_HEADS if kind == "A" else 0 for kind in self.kinds])
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_ssm_conv_kernel(CONV)
        writer.add_ssm_inner_size(self.inner)
        writer.add_ssm_state_size(self.ssm_size)
        writer.add_ssm_time_step_rank(self.ssm_heads)
        writer.add_ssm_group_count(self.ssm_groups)
        writer.add_expert_count(self.experts)
        writer.add_expert_used_count(self.used)
        writer.add_expert_shared_feed_forward_length(self.shared)
        writer.add_rope_dimension_count(self.head_dim)
        writer.add_rope_freq_base(1000.0)
        if self.arch == "nemotron_h_moe":
            self._nemotron_keys(writer)
        else:
            self._granite_keys(writer)

    def _nemotron_keys(self, writer: gguf.GGUFWriter) -> None:
        writer.add_layer_norm_eps(EPSILON)
        writer.add_feed_forward_length([self.width * (kind == "E") for kind in self.kinds])
        writer.add_expert_feed_forward_length(self.width)
        writer.add_expert_shared_count(1)
        writer.add_expert_weights_norm(True)
        writer.add_expert_weights_scale(1.3)
        if self.latent:
            writer.add_moe_latent_size(self.latent)

    def _granite_keys(self, writer: gguf.GGUFWriter) -> None:
        writer.add_feed_forward_length(self.width)
        writer.add_attention_scale(0.3)
        writer.add_embedding_scale(3.0)
        writer.add_residual_scale(0.7)
        writer.add_logit_scale(1.5)
        writer.add_rope_scaling_finetuned(self.turned)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        hidden = self.hidden
        yield "token_embd.weight", (VOCAB, hidden), 1.0
        yield "output_norm.weight", (hidden,), 0.3
        yield "output.weight", (VOCAB, hidden), 1.5 * hidden**-0.5
        parts = {"M": self._mamba, "A": self._attention, "E": self._squares}
        for layer, kind in enumerate(self.kinds):
            own = [("attn_norm.weight", (hidden,), 0.3), *parts[kind]()]
            if self.arch == "granitehybrid":
                own += self._experts()
            for name, shape, std in own:
                yield f"blk.{layer}.{name}", shape, std

    def _mamba(self) -> Iterator[TensorSpec]:
        inner, heads, std = self.inner, self.ssm_heads, self.hidden**-0.5
        channels = inner + 2 * self.ssm_groups * self.ssm_size
        yield "ssm_in.weight", (inner + channels + heads, self.hidden), std
        yield "ssm_conv1d.weight", (channels, CONV), 0.5
        yield "ssm_conv1d.bias", (channels,), 0.3
        yield "ssm_dt.bias", (heads,), 0.5
        yield "ssm_a", (heads, 1), 0.5
        yield "ssm_d", (heads, 1), 0.5
        yield "ssm_norm.weight", (self.ssm_groups, inner // self.ssm_groups), 0.3
        yield "ssm_out.weight", (self.hidden, inner), inner**-0.5

    def _attention(self) -> Iterator[TensorSpec]:
        query, key, std = HEADS * self.head_dim, KV_HEADS * self.head_dim, 0.8 * self.hidden**-0.5
        yield "attn_q.weight", (query, self.hidden), std
        yield "attn_k.weight", (key, self.hidden), std
        yield "attn_v.weight", (key, self.hidden), std
        yield "attn_output.weight", (self.hidden, query), query**-0.5

    def _squares(self) -> Iterator[TensorSpec]:
        hidden, width, inside = self.hidden, self.width, self.latent or self.hidden
        yield "ffn_gate_inp.weight", (self.experts, hidden), hidden**-0.5
        yield "exp_probs_b.bias", (self.experts,), 0.1
        if self.latent:
            yield "ffn_latent_down.weight", (inside, hidden), hidden**-0.5
            yield "ffn_latent_up.weight", (hidden, inside), inside**-0.5
        yield "ffn_up_exps.weight", (self.experts, width, inside), inside**-0.5
        yield "ffn_down_exps.weight", (self.experts, inside, width), 1.5 * width**-0.5
        yield "ffn_up_shexp.weight", (self.shared, hidden), hidden**-0.5
        yield "ffn_down_shexp.weight", (hidden, self.shared), 1.5 * self.shared**-0.5

    def _experts(self) -> Iterator[TensorSpec]:
        yield "ffn_norm.weight", (self.hidden,), 0.3
        yield "ffn_gate_inp.weight", (self.experts, self.hidden), self.hidden**-0.5
        yield from swiglu(self.hidden, self.width, "_exps", self.experts)
        yield from swiglu(self.hidden, self.shared, "_shexp")


BLOCKS = {"hidden": 64, "head_dim": 32, "width": 32, "shared": 32, "used": EXPERTS}
"""Rows of whole blocks, and no choice of experts that rounding could turn."""
NEMOTRON, GRANITE = {"arch": "nemotron_h_moe"}, {"arch": "granitehybrid"}
NEMOTRON_BLOCKS = NEMOTRON | BLOCKS

MAMBA2_MODELS: tuple[GoldenMamba2, ...] = (
    GoldenMamba2("nemotron_h_moe", seed=641, kinds="MEAEMEMAEMEAE", **NEMOTRON),
    GoldenMamba2("nemotron_h_moe-latent", seed=642, kinds="MEAEME", latent=24, **NEMOTRON),
    GoldenMamba2("nemotron_h_moe-q8_0", seed=643, kinds="MEAE", types=("Q8_0",), **NEMOTRON_BLOCKS),
    GoldenMamba2("granitehybrid", seed=644, kinds="MAMAMA", **GRANITE),
    GoldenMamba2("granitehybrid-still", seed=645, kinds="MMA", turned=False, **GRANITE),
    GoldenMamba2("granitehybrid-q5_0", seed=646, kinds="MMA", types=("Q5_0",), **BLOCKS, **GRANITE),
)
