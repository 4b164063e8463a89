"""Golden models with Kimi's delta rule beside latent attention: Kimi Linear and Ling 3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, TensorSpec, swiglu

HEADS, EXPERTS, CONV = 4, 8, 4
LATENT, TURNED = 32, 8


@dataclass(frozen=True, slots=True)
class GoldenKimi:
    """`kinds` says what each layer is: K, a delta rule, or A, attention. The first one is dense.

    `rank` is that of queries, 0 where they are projected at once.
    """

    name: str
    arch: str
    seed: int
    kinds: str
    types: tuple[str, ...] = ("F32",)
    hidden: int = 32
    dim: int = 16
    plain: int = 12
    value: int = 20
    rank: int = 0
    width: int = 16
    used: int = 3
    experts: int = EXPERTS

    @property
    def layers(self) -> int:
        """How many."""
        return len(self.kinds)

    @property
    def moe_layers(self) -> list[int]:
        """All but the first."""
        return list(range(1, self.layers))

    @property
    def is_ling(self) -> bool:
        """Whether its decays are bounded."""
        return self.arch == "bailingmoe3"

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(3 * self.width)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv([int(kind == "A") for kind in self.kinds])
        writer.add_key_length(LATENT + TURNED)
        writer.add_value_length(LATENT)
        writer.add_key_length_mla(self.plain + TURNED)
        writer.add_value_length_mla(self.value)
        writer.add_kv_lora_rank(LATENT)
        if self.rank:
            writer.add_q_lora_rank(self.rank)
        writer.add_rope_dimension_count(TURNED)
        writer.add_rope_freq_base(1000.0)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_ssm_conv_kernel(CONV)
        writer.add_uint32(f"{self.arch}.kda.head_dim", self.dim)
        writer.add_leading_dense_block_count(1)
        writer.add_expert_count(self.experts)
        writer.add_expert_used_count(self.used)
        writer.add_expert_shared_count(1)
        writer.add_expert_feed_forward_length(self.width)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_expert_weights_norm(True)
        writer.add_expert_weights_scale(1.8)
        if self.is_ling:
            writer.add_float32(f"{self.arch}.kda.gate_lower_bound", -5.0)
            writer.add_swiglu_clamp_exp([0.0, 0.6, 0.0, 0.4, 0.5, 0.7][: self.layers])

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        hidden = self.hidden
        yield "token_embd.weight", (VOCAB, hidden), 1.0
        yield "output_norm.weight", (hidden,), 0.3
        yield "output.weight", (VOCAB, hidden), 1.5 * hidden**-0.5
        for layer, kind in enumerate(self.kinds):
            mixer = self._delta() if kind == "K" else self._latent()
            ffn = self._experts() if layer else swiglu(hidden, 3 * self.width)
            yield f"blk.{layer}.attn_norm.weight", (hidden,), 0.3
            yield f"blk.{layer}.ffn_norm.weight", (hidden,), 0.3
            for name, shape, std in (*mixer, *ffn):
                yield f"blk.{layer}.{name}", shape, std

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
        hidden, queries = self.hidden, HEADS * (self.plain + TURNED)
        if self.rank:
            yield "attn_q_a.weight", (self.rank, hidden), hidden**-0.5
            yield "attn_q_a_norm.weight", (self.rank,), 0.3
            yield "attn_q_b.weight", (queries, self.rank), 0.5 * self.rank**-0.5
        else:
            yield "attn_q.weight", (queries, hidden), 0.8 * hidden**-0.5
        yield "attn_kv_a_mqa.weight", (LATENT + TURNED, hidden), hidden**-0.5
        yield "attn_kv_a_norm.weight", (LATENT,), 0.3
        yield "attn_k_b.weight", (HEADS, LATENT, self.plain), 0.5 * LATENT**-0.5
        yield "attn_v_b.weight", (HEADS, self.value, LATENT), 0.5 * LATENT**-0.5
        if self.is_ling:
            yield "attn_gate.weight", (HEADS, hidden), hidden**-0.5
        yield "attn_output.weight", (hidden, HEADS * self.value), (HEADS * self.value) ** -0.5

    def _experts(self) -> Iterator[TensorSpec]:
        hidden = self.hidden
        yield "ffn_gate_inp.weight", (self.experts, hidden), hidden**-0.5
        yield "exp_probs_b.bias", (self.experts,), 0.1
        yield from swiglu(hidden, self.width, "_exps", self.experts)
        yield from swiglu(hidden, self.width, "_shexp")


BLOCKS = {"hidden": 64, "dim": 32, "plain": 32, "value": 24, "width": 32, "used": EXPERTS}
"""Rows of whole blocks, and no choice of experts that rounding could turn."""
KIMI, LING = {"arch": "kimi-linear"}, {"arch": "bailingmoe3"}

KIMI_MODELS: tuple[GoldenKimi, ...] = (
    GoldenKimi("kimi-linear", seed=651, kinds="KAKAKA", **KIMI),
    GoldenKimi("kimi-linear-q8_0", seed=652, kinds="KKA", types=("Q8_0",), **BLOCKS, **KIMI),
    GoldenKimi("bailingmoe3", seed=653, kinds="KAKAKA", rank=16, **LING),
    GoldenKimi("bailingmoe3-q8_0", seed=654, kinds="KKA", types=("Q8_0",), **BLOCKS, **LING),
)
