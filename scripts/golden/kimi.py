"""Golden models with Kimi's delta rule beside latent attention: Kimi Linear and Ling 3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, TensorSpec
from golden.keys import add_shared_experts, add_sigmoid, add_sizes
from golden.parts import latent_heads, latent_row, mixture, narrow_queries, norms, swiglu
from golden.recipe import CONV, EXPERTS, HEADS, OfKinds

LATENT, TURNED = 32, 8


@dataclass(frozen=True, slots=True)
class GoldenKimi(OfKinds):
    """`kinds`: K, a delta rule, or A, attention. The first layer is dense.

    `rank` is that of queries, 0 where they are projected at once.
    """

    hidden: int = 32
    lead: int = 1
    dim: int = 16
    plain: int = 12
    value: int = 20
    rank: int = 0
    turned: int = TURNED

    @property
    def is_ling(self) -> bool:
        """Whether its decays are bounded."""
        return self.arch == "bailingmoe3"

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        kv_heads = [int(kind == "A") for kind in self.kinds]
        add_sizes(writer, self, 3 * self.width, kv_heads=kv_heads)
        writer.add_key_length(LATENT + self.turned)
        writer.add_value_length(LATENT)
        writer.add_key_length_mla(self.plain + self.turned)
        writer.add_value_length_mla(self.value)
        writer.add_kv_lora_rank(LATENT)
        if self.rank:
            writer.add_q_lora_rank(self.rank)
        writer.add_rope_dimension_count(self.turned)
        writer.add_rope_freq_base(1000.0)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_ssm_conv_kernel(CONV)
        writer.add_uint32(f"{self.arch}.kda.head_dim", self.dim)
        add_shared_experts(writer, self, shared=1)
        add_sigmoid(writer, 1.8)
        if self.is_ling:
            writer.add_float32(f"{self.arch}.kda.gate_lower_bound", -5.0)
            writer.add_swiglu_clamp_exp([0.0, 0.6, 0.0, 0.4, 0.5, 0.7][: self.layers])

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Both norms, then the rest."""
        yield from norms(self.hidden, "attn_norm", "ffn_norm")
        yield from self._delta() if self.kinds[layer] == "K" else self._latent()
        if layer:
            yield from mixture(self, bias=0.1, shared=self.width)
        else:
            yield from swiglu(self.hidden, 3 * self.width)

    def _delta(self) -> Iterator[TensorSpec]:
        hidden, inner, std = self.hidden, HEADS * self.dim, self.hidden**-0.5
        for part in "qkv":
            yield f"attn_{part}.weight", (inner, hidden), std
            shape = (1, inner, 1, CONV) if self.is_ling else (inner, 1, CONV)
            yield f"ssm_conv1d_{part}.weight", shape, 0.5
        for gate in ("f", "g"):
            if self.is_ling:
                yield f"ssm_{gate}_a.weight", (inner, hidden), std
            else:
                yield f"ssm_{gate}_a.weight", (self.dim, hidden), std
                yield f"ssm_{gate}_b.weight", (inner, self.dim), self.dim**-0.5
        yield "ssm_beta.weight", (HEADS, hidden), std
        yield "ssm_a", (HEADS, 1), 0.5
        yield "ssm_dt.bias", (inner,), 0.5
        yield "ssm_norm.weight", (self.dim,), 0.3
        yield "attn_output.weight", (hidden, inner), 2 * inner**-0.5

    def _latent(self) -> Iterator[TensorSpec]:
        hidden, queries = self.hidden, HEADS * (self.plain + self.turned)
        if self.rank:
            yield from narrow_queries(hidden, self.rank, queries)
        else:
            yield "attn_q.weight", (queries, hidden), 0.8 * hidden**-0.5
        yield from latent_row(hidden, LATENT, self.turned)
        yield from latent_heads(HEADS, LATENT, self.plain, self.value)
        if self.is_ling:
            yield "attn_gate.weight", (HEADS, hidden), hidden**-0.5
        yield "attn_output.weight", (hidden, HEADS * self.value), (HEADS * self.value) ** -0.5


BLOCKS = {"hidden": 64, "dim": 32, "plain": 32, "value": 24, "width": 32, "used": EXPERTS}
"""Rows of whole blocks, and no choice of experts that rounding could turn."""
KIMI, LING = {"arch": "kimi-linear"}, {"arch": "bailingmoe3"}

KIMI_MODELS: tuple[GoldenKimi, ...] = (
    GoldenKimi("kimi-linear", seed=651, kinds="KAKAKA", **KIMI),
    GoldenKimi("kimi-linear-q8_0", seed=652, kinds="KKA", types=("Q8_0",), **BLOCKS, **KIMI),
    GoldenKimi("bailingmoe3", seed=653, kinds="KAKAKA", rank=16, **LING),
    GoldenKimi("bailingmoe3-q8_0", seed=654, kinds="KKA", types=("Q8_0",), **BLOCKS, **LING),
)
