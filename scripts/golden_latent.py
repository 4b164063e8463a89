"""Golden models of DeepSeek's line: deepseek2 in both layouts, glm4moe and bailingmoe2.

All have a leading dense layer, shared experts and routers with a metadata of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf
from golden_files import EPSILON, TOKEN_COUNT, VOCAB, TensorSpec


@dataclass(frozen=True, slots=True)
class LatentModel:
    """One model; `layout`: "old" or "absorbed" (latents), "grouped" or "fused" (heads)."""

    name: str
    arch: str
    layout: str
    seed: int
    types: tuple[str, ...] = ("F32",)
    layers: int = 3
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 24
    rotated: int = 8
    value: int = 16
    query_rank: int = 0
    rank: int = 32
    experts: int = 8
    expert_width: int = 32
    sigmoid: bool = True
    groups: int = 0
    yarn: bool = False
    qk_norm: bool = False
    extra_layers: int = 0

    @property
    def moe_layers(self) -> list[int]:
        """All but the first."""
        return list(range(1, self.layers))

    @property
    def latent(self) -> bool:
        """Whether attention is over latents."""
        return self.arch == "deepseek2"

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys of these architectures."""
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers + self.extra_layers)
        if self.extra_layers:
            writer.add_nextn_predict_layers(self.extra_layers)
        writer.add_feed_forward_length(96)
        writer.add_head_count(self.heads)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_rope_dimension_count(self.rotated)
        writer.add_rope_freq_base(1000.0)
        writer.add_leading_dense_block_count(1)
        writer.add_expert_count(self.experts)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(self.expert_width)
        writer.add_expert_shared_count(1 if self.arch == "bailingmoe2" else 2)
        writer.add_expert_weights_scale(1.8)
        writer.add_expert_weights_norm(self.sigmoid)
        kinds = gguf.ExpertGatingFuncType
        writer.add_expert_gating_func(kinds.SIGMOID if self.sigmoid else kinds.SOFTMAX)
        if self.groups:
            writer.add_expert_group_count(self.groups)
            writer.add_expert_group_used_count(self.groups // 2)
        self._lengths(writer)
        if self.yarn:
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(4.0)
            writer.add_rope_scaling_orig_ctx_len(TOKEN_COUNT // 2)
            writer.add_rope_scaling_yarn_log_mul(0.0707)

    def _lengths(self, writer: gguf.GGUFWriter) -> None:
        if not self.latent:
            writer.add_head_count_kv(self.kv_heads)
            writer.add_key_length(self.head_dim)
            writer.add_value_length(self.head_dim)
            return
        if self.query_rank:
            writer.add_q_lora_rank(self.query_rank)
        writer.add_kv_lora_rank(self.rank)
        absorbed = self.layout == "absorbed"
        writer.add_head_count_kv(1 if absorbed else self.heads)
        writer.add_key_length(self.rank + self.rotated if absorbed else self.head_dim)
        writer.add_value_length(self.rank if absorbed else self.value)
        if absorbed:
            writer.add_key_length_mla(self.head_dim)
            writer.add_value_length_mla(self.value)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        yield "token_embd.weight", (VOCAB, self.hidden), 1.0
        yield "output_norm.weight", (self.hidden,), 0.3
        yield "output.weight", (VOCAB, self.hidden), 1.5 * self.hidden**-0.5
        for layer in range(self.layers):
            attention = self._latents() if self.latent else self._heads()
            ffn = self._experts() if layer else self._ffn("", 96)
            for part in (attention, ffn):
                for name, shape, std in part:
                    yield f"blk.{layer}.{name}", shape, std

    def _latents(self) -> Iterator[TensorSpec]:
        hidden, rank, plain = self.hidden, self.rank, self.head_dim - self.rotated
        yield "attn_norm.weight", (hidden,), 0.3
        queries = self.heads * self.head_dim
        if self.query_rank:
            yield "attn_q_a.weight", (self.query_rank, hidden), hidden**-0.5
            yield "attn_q_a_norm.weight", (self.query_rank,), 0.3
            yield "attn_q_b.weight", (queries, self.query_rank), 0.5 * self.query_rank**-0.5
        else:
            yield "attn_q.weight", (queries, hidden), 0.5 * hidden**-0.5
        yield "attn_kv_a_mqa.weight", (rank + self.rotated, hidden), hidden**-0.5
        yield "attn_kv_a_norm.weight", (rank,), 0.3
        if self.layout == "absorbed":
            yield "attn_k_b.weight", (self.heads, rank, plain), 0.7 * rank**-0.5
            yield "attn_v_b.weight", (self.heads, self.value, rank), rank**-0.5
        else:
            rows = self.heads * (plain + self.value)
            yield "attn_kv_b.weight", (rows, rank), 0.7 * rank**-0.5
        yield "attn_output.weight", (hidden, self.heads * self.value), 0.12

    def _heads(self) -> Iterator[TensorSpec]:
        hidden, queries = self.hidden, self.heads * self.head_dim
        keys = self.kv_heads * self.head_dim
        yield "attn_norm.weight", (hidden,), 0.3
        if self.layout == "fused":
            yield "attn_qkv.weight", (queries + 2 * keys, hidden), 0.8 * hidden**-0.5
        else:
            for name, rows in (("attn_q", queries), ("attn_k", keys), ("attn_v", keys)):
                yield f"{name}.weight", (rows, hidden), 0.8 * hidden**-0.5
                yield f"{name}.bias", (rows,), 0.5
        if self.qk_norm:
            yield "attn_q_norm.weight", (self.head_dim,), 0.3
            yield "attn_k_norm.weight", (self.head_dim,), 0.3
        yield "attn_output.weight", (hidden, queries), queries**-0.5

    def _norm(self) -> str:
        return "post_attention_norm" if self.arch == "glm4moe" else "ffn_norm"

    def _ffn(self, suffix: str, width: int) -> Iterator[TensorSpec]:
        if not suffix:
            yield f"{self._norm()}.weight", (self.hidden,), 0.3
        yield f"ffn_gate{suffix}.weight", (width, self.hidden), self.hidden**-0.5
        yield f"ffn_up{suffix}.weight", (width, self.hidden), self.hidden**-0.5
        yield f"ffn_down{suffix}.weight", (self.hidden, width), 1.5 * width**-0.5

    def _experts(self) -> Iterator[TensorSpec]:
        yield f"{self._norm()}.weight", (self.hidden,), 0.3
        yield "ffn_gate_inp.weight", (self.experts, self.hidden), self.hidden**-0.5
        if self.sigmoid:
            yield "exp_probs_b.bias", (self.experts,), 0.1
        for name, shape, std in self._ffn("_exps", self.expert_width):
            yield name, (self.experts, *shape), std
        shared = 1 if self.arch == "bailingmoe2" else 2
        yield from self._ffn("_shexp", shared * self.expert_width)


# llama.cpp takes a model for one without a query latent by its 26 layers.
LITE = {"layers": 26, "hidden": 32, "expert_width": 4, "heads": 2, "rank": 16}
V3 = {"query_rank": 32, "groups": 4, "yarn": True}
LATENT_MODELS = (
    LatentModel("deepseek2-lite", "deepseek2", "old", 201, sigmoid=False, yarn=True, **LITE),
    LatentModel("deepseek2", "deepseek2", "absorbed", 202, **V3),
    LatentModel("glm4moe", "glm4moe", "grouped", 204),
    LatentModel("glm4moe-norm", "glm4moe", "grouped", 205, qk_norm=True),
    LatentModel("bailingmoe2", "bailingmoe2", "fused", 206, head_dim=16, qk_norm=True, groups=4),
)
