"""The tiny random models of tests/data/golden: Llama's family, and the list of all.

Every model is small and deliberately odd: norm weights far from one, an epsilon that matters, head
sizes that do not follow from the hidden size, RoPE bases of their own; so that a value taken from
the wrong place shows in the logits. Other architectures have files of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden import ernie4_5_moe, gemma4, phimoe
from golden.deepseek import DEEPSEEK_LIKE
from golden.dots3note import DOTS3NOTE_MODELS
from golden.files import EPSILON, TOKEN_COUNT, VOCAB, Model, TensorSpec, swiglu
from golden.jamba import JAMBA_MODELS
from golden.kimi import KIMI_MODELS
from golden.later import LATER_MODELS
from golden.lfm2moe import LFM2MOE_MODELS
from golden.mamba2 import MAMBA2_MODELS
from golden.mixtures import MIXTURES
from golden.qwen3next import QWEN3NEXT_MODELS
from golden.sparse import SPARSE_MODELS
from golden.windows import WINDOW_MODELS


@dataclass(frozen=True, slots=True)
class GoldenModel:
    """One model. `types` are given to its matrices in turn; vectors and routers stay F32.

    `linear_factor` and `yarn_factor` scale RoPE; `attn_factor` goes with either.
    `qk_norm` is None, "head" (one weight a head dimension) or "row" (over all heads).
    """

    name: str
    arch: str
    seed: int
    types: tuple[str, ...] = ("F32",)
    layers: int = 2
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    intermediate: int = 48
    experts: int = 0
    experts_used: int = 2
    shared_intermediate: int = 0
    qkv_bias: bool = False
    qk_norm: str | None = None
    tied: bool = False
    rope_base: float = 10000.0
    rope_factors: bool = False
    linear_factor: float | None = None
    yarn_factor: float | None = None
    attn_factor: float | None = None

    @property
    def moe_layers(self) -> list[int]:
        """All or none."""
        return list(range(self.layers)) if self.experts else []

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys of these architectures."""
        _add_metadata(writer, self)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        yield from _tensors(self)


K_TYPES = ("Q4_K", "Q6_K", "Q5_K", "Q3_K", "Q2_K")
I_TYPES = ("IQ4_XS", "IQ2_XXS", "IQ3_S", "IQ2_XS", "IQ4_NL", "IQ3_XXS", "IQ2_S", "IQ1_S")
ODD_TYPES = ("F16", "MXFP4", "BF16", "IQ4_NL")
MOE = {"experts": 8, "intermediate": 16}
MOE_32 = {"experts": 8, "intermediate": 32}  # rows of whole blocks, for the quantised ones
SMALL_MOE = {"experts": 4, "intermediate": 16, "tied": True}
QWEN2 = {"qkv_bias": True, "shared_intermediate": 32, "rope_base": 1000.0}
QWEN3 = {"qk_norm": "head", "head_dim": 24, "rope_base": 1000.0}
QWEN3_32 = QWEN3 | {"head_dim": 32}
OLMOE = {"qk_norm": "row", "kv_heads": 4}
WIDE = {"hidden": 256, "intermediate": 256, "head_dim": 64}

# The seeds of the quantised mixtures are chosen: llama.cpp rounds activations to 8 bits, which at
# other seeds sends a token that sits on a tie to another expert (KL of 0.5 at that token).
MODELS: tuple[Model, ...] = (
    GoldenModel("llama", "llama", 1),
    GoldenModel("llama-factors", "llama", 22, tied=True, head_dim=24, rope_factors=True),
    GoldenModel("llama-linear", "llama", 3, tied=True, linear_factor=4.0),
    GoldenModel("mixtral", "llama", 4, **MOE),
    GoldenModel("mixtral-yarn", "llama", 25, yarn_factor=4.0, **SMALL_MOE),
    GoldenModel("olmoe", "olmoe", 6, **MOE, **OLMOE),
    GoldenModel("qwen2moe", "qwen2moe", 27, **MOE, **QWEN2),
    GoldenModel("qwen3moe", "qwen3moe", 28, **MOE, **QWEN3),
    GoldenModel("qwen3moe-linear", "qwen3moe", 9, linear_factor=2.5, **SMALL_MOE, **QWEN3),
    GoldenModel(
        "qwen3moe-yarn", "qwen3moe", 10, yarn_factor=8.0, attn_factor=0.8, **SMALL_MOE, **QWEN3
    ),
    GoldenModel("llama-q4_0", "llama", 11, ("Q4_0",), intermediate=64),
    GoldenModel("mixtral-q8_0", "llama", 102, ("Q8_0",), **MOE_32),
    GoldenModel("olmoe-q4_1", "olmoe", 122, ("Q4_1",), **MOE_32, **OLMOE),
    GoldenModel("qwen2moe-q5", "qwen2moe", 119, ("Q5_0", "Q5_1"), **MOE_32, **QWEN2),
    GoldenModel("qwen3moe-odd", "qwen3moe", 123, ODD_TYPES, **MOE_32, **QWEN3_32),
    GoldenModel("llama-k", "llama", 16, K_TYPES, **WIDE),
    GoldenModel("llama-i", "llama", 17, I_TYPES, **WIDE),
    GoldenModel("mixtral-k", "llama", 109, ("Q4_K", "Q6_K", "Q5_K"), layers=1, experts=3, **WIDE),
    *MIXTURES,
    *gemma4.MODELS,
    *phimoe.MODELS,
    *ernie4_5_moe.MODELS,
    *QWEN3NEXT_MODELS,
    *LFM2MOE_MODELS,
    *DEEPSEEK_LIKE,
    *SPARSE_MODELS,
    *LATER_MODELS,
    *WINDOW_MODELS,
    *MAMBA2_MODELS,
    *KIMI_MODELS,
    *JAMBA_MODELS,
    *DOTS3NOTE_MODELS,
)


def _add_metadata(writer: gguf.GGUFWriter, model: GoldenModel) -> None:
    writer.add_embedding_length(model.hidden)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(model.intermediate)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_layer_norm_rms_eps(EPSILON)
    if model.head_dim * model.heads != model.hidden:
        writer.add_key_length(model.head_dim)
        writer.add_value_length(model.head_dim)
    if model.experts:
        writer.add_expert_count(model.experts)
        writer.add_expert_used_count(model.experts_used)
    if model.arch.startswith("qwen"):
        writer.add_expert_feed_forward_length(model.intermediate)
    if model.shared_intermediate:
        writer.add_expert_shared_feed_forward_length(model.shared_intermediate)
    _add_rope(writer, model)


def _add_rope(writer: gguf.GGUFWriter, model: GoldenModel) -> None:
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_rope_freq_base(model.rope_base)
    if model.linear_factor:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(model.linear_factor)
    if model.yarn_factor:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(model.yarn_factor)
        writer.add_rope_scaling_orig_ctx_len(TOKEN_COUNT // 2)
    if model.attn_factor:
        writer.add_rope_scaling_attn_factors(model.attn_factor)


def _tensors(model: GoldenModel) -> Iterator[TensorSpec]:
    hidden = model.hidden
    yield "token_embd.weight", (VOCAB, hidden), 0.25 if model.tied else 1.0
    yield "output_norm.weight", (hidden,), 0.3
    if not model.tied:
        yield "output.weight", (VOCAB, hidden), 1.5 * hidden**-0.5
    if model.rope_factors:
        yield "rope_freqs.weight", (model.head_dim // 2,), 0.3
    for layer in range(model.layers):
        parts = (_attention(model), _experts(model) if model.experts else _dense_ffn(model))
        for name, shape, std in (spec for part in parts for spec in part):
            yield f"blk.{layer}.{name}", shape, std


def _attention(model: GoldenModel) -> Iterator[TensorSpec]:
    hidden = model.hidden
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    yield "attn_norm.weight", (hidden,), 0.3
    for name, rows in (("attn_q", query), ("attn_k", key), ("attn_v", key)):
        yield f"{name}.weight", (rows, hidden), 0.8 * hidden**-0.5
        if model.qkv_bias:
            yield f"{name}.bias", (rows,), 0.5
    if model.qk_norm:
        per_head = model.qk_norm == "head"
        yield "attn_q_norm.weight", (model.head_dim if per_head else query,), 0.3
        yield "attn_k_norm.weight", (model.head_dim if per_head else key,), 0.3
    yield "attn_output.weight", (hidden, query), query**-0.5


def _dense_ffn(model: GoldenModel) -> Iterator[TensorSpec]:
    yield "ffn_norm.weight", (model.hidden,), 0.3
    yield from swiglu(model.hidden, model.intermediate)


def _experts(model: GoldenModel) -> Iterator[TensorSpec]:
    hidden = model.hidden
    yield "ffn_norm.weight", (hidden,), 0.3
    yield "ffn_gate_inp.weight", (model.experts, hidden), hidden**-0.5
    yield from swiglu(hidden, model.intermediate, "_exps", model.experts)
    if model.shared_intermediate:
        yield "ffn_gate_inp_shexp.weight", (hidden,), hidden**-0.5
        yield from swiglu(hidden, model.shared_intermediate, "_shexp")
