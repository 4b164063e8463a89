"""Golden models with Mamba-2: Nemotron 3 and Granite 4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, TensorSpec
from golden.keys import add_experts, add_granite_scales, add_head_dim
from golden.parts import attention, mixture, norms, router
from golden.recipe import CONV, EXPERTS, HEADS, KV_HEADS, OfKinds


@dataclass(frozen=True, slots=True)
class GoldenMamba2(OfKinds):
    """`kinds`: M, Mamba-2, A, attention, or, in Nemotron alone, E, experts.

    `latent` is the width that experts work in, 0 for all.
    """

    hidden: int = 32
    head_dim: int = 24
    shared: int = 24
    ssm_heads: int = 8
    ssm_groups: int = 2
    ssm_size: int = 16
    latent: int = 0
    turned: bool = True

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
        add_head_dim(writer, self.head_dim)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_ssm_conv_kernel(CONV)
        writer.add_ssm_inner_size(self.inner)
        writer.add_ssm_state_size(self.ssm_size)
        writer.add_ssm_time_step_rank(self.ssm_heads)
        writer.add_ssm_group_count(self.ssm_groups)
        add_experts(writer, self)
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
        add_granite_scales(writer)
        writer.add_rope_scaling_finetuned(self.turned)

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """What the kind of layer has; in Granite, experts besides."""
        of_kind = {"M": self._mamba, "A": self._attention, "E": self._squares}
        yield from norms(self.hidden, "attn_norm")
        yield from of_kind[self.kinds[layer]]()
        if self.arch == "granitehybrid":
            yield from norms(self.hidden, "ffn_norm")
            yield from mixture(self, shared=self.shared)

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
        return attention(self.hidden, HEADS * self.head_dim, KV_HEADS * self.head_dim)

    def _squares(self) -> Iterator[TensorSpec]:
        hidden, width, inside = self.hidden, self.width, self.latent or self.hidden
        yield from router(self, bias=0.1)
        if self.latent:
            yield "ffn_latent_down.weight", (inside, hidden), hidden**-0.5
            yield "ffn_latent_up.weight", (hidden, inside), inside**-0.5
        yield "ffn_up_exps.weight", (self.experts, width, inside), inside**-0.5
        yield "ffn_down_exps.weight", (self.experts, inside, width), 1.5 * width**-0.5
        yield "ffn_up_shexp.weight", (self.shared, hidden), hidden**-0.5
        yield "ffn_down_shexp.weight", (hidden, self.shared), 1.5 * self.shared**-0.5


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
