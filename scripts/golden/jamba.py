"""Golden models of Jamba: Mamba with attention here and there, experts in every other layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, TensorSpec
from golden.keys import add_experts, add_sizes
from golden.parts import attention, mixture, norms, swiglu
from golden.recipe import CONV, EXPERTS, HEADS, KV_HEADS, OfKinds


@dataclass(frozen=True, slots=True)
class GoldenJamba(OfKinds):
    """`kinds`: M, Mamba, or A, attention. Every second layer has experts."""

    hidden: int = 32
    used: int = 2
    moe_every: int = 2
    size: int = 10
    rank: int = 12

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        kv_heads = [KV_HEADS if kind == "A" else 0 for kind in self.kinds]
        add_sizes(writer, self, self.width, kv_heads=kv_heads)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_ssm_conv_kernel(CONV)
        writer.add_ssm_inner_size(2 * self.hidden)
        writer.add_ssm_state_size(self.size)
        writer.add_ssm_time_step_rank(self.rank)
        add_experts(writer, self)

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Both norms, then the rest."""
        hidden = self.hidden
        yield from norms(hidden, "attn_norm", "ffn_norm")
        if self.kinds[layer] == "M":
            yield from self._mamba()
        else:
            yield from attention(hidden, hidden, hidden // HEADS * KV_HEADS)
        yield from mixture(self) if layer in self.moe_layers else swiglu(hidden, self.width)

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


BLOCKS = {"hidden": 64, "width": 32, "rank": 32, "size": 16, "used": EXPERTS}
"""Rows of whole blocks, and no choice of experts that rounding could turn."""

JAMBA_MODELS: tuple[GoldenJamba, ...] = (
    GoldenJamba("jamba", "jamba", 661, kinds="MAMAMA"),
    GoldenJamba("jamba-q8_0", "jamba", 662, ("Q8_0",), kinds="MMA", **BLOCKS),
)
