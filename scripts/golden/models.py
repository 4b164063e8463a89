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
from golden.deepseek4 import DEEPSEEK4_MODELS
from golden.dots3note import DOTS3NOTE_MODELS
from golden.files import EPSILON, Model, TensorSpec
from golden.glm5_next import GLM5_NEXT_MODELS
from golden.grovemoe import GROVEMOE_MODELS
from golden.jamba import JAMBA_MODELS
from golden.keys import add_experts, add_head_dim, add_sizes, add_yarn
from golden.kimi import KIMI_MODELS
from golden.kimi_k3 import KIMI_K3_MODELS
from golden.later import LATER_MODELS
from golden.lfm2moe import LFM2MOE_MODELS
from golden.mamba2 import MAMBA2_MODELS
from golden.minimax_m3 import MINIMAX_M3_MODELS
from golden.mixtures import MIXTURES
from golden.parts import attention, head_norms, mixture, norms, swiglu
from golden.qwen3next import QWEN3NEXT_MODELS
from golden.qwen4exp import BLOCKS, QWEN4EXP_MODELS
from golden.recipe import HEADS, KV_HEADS, TIED, Counted
from golden.sparse import SPARSE_MODELS
from golden.windows import WINDOW_MODELS


@dataclass(frozen=True, slots=True)
class GoldenModel(Counted):
    """One model. `types` are given to its matrices in turn; vectors and routers stay F32.

    `linear_factor` and `yarn_factor` scale RoPE; `attn_factor` goes with either.
    `qk_norm` is None, "head" (one weight a head dimension) or "row" (over all heads).
    """

    layers: int = 2
    width: int = 48
    used: int = 2
    experts: int = 0
    kv_heads: int = KV_HEADS
    head_dim: int = 16
    shared: int = 0
    qkv_bias: bool = False
    qk_norm: str | None = None
    rope_base: float = 10000.0
    linear_factor: float | None = None
    yarn_factor: float | None = None
    attn_factor: float | None = None

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys of these architectures."""
        _add_metadata(writer, self)

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Attention, then a network or experts."""
        yield from norms(self.hidden, "attn_norm")
        yield from _attention(self)
        yield from norms(self.hidden, "ffn_norm")
        if self.experts:
            yield from _experts(self)
        else:
            yield from swiglu(self.hidden, self.width)


K_TYPES = ("Q4_K", "Q6_K", "Q5_K", "Q3_K", "Q2_K")
I_TYPES = ("IQ4_XS", "IQ2_XXS", "IQ3_S", "IQ2_XS", "IQ4_NL", "IQ3_XXS", "IQ2_S", "IQ1_S")
ODD_TYPES = ("F16", "MXFP4", "BF16", "IQ4_NL")
MOE = {"experts": 8, "width": 16}
MOE_32 = {"experts": 8, "width": 32}  # rows of whole blocks, for the quantised ones
SMALL_MOE = {"experts": 4, "width": 16, "tied": TIED}
QWEN2 = {"qkv_bias": True, "shared": 32, "rope_base": 1000.0}
QWEN3 = {"qk_norm": "head", "head_dim": 24, "rope_base": 1000.0}
QWEN3_32 = QWEN3 | {"head_dim": 32}
OLMOE = {"qk_norm": "row", "kv_heads": 4}
WIDE = {"hidden": 256, "width": 256, "head_dim": 64}

# The seeds of the quantised mixtures are chosen: llama.cpp rounds activations to 8 bits, which at
# other seeds sends a token that sits on a tie to another expert (KL of 0.5 at that token).
MODELS: tuple[Model, ...] = (
    GoldenModel("llama", "llama", 1),
    GoldenModel("llama-factors", "llama", 22, tied=TIED, head_dim=24, rope_factors=12),
    GoldenModel("llama-linear", "llama", 3, tied=TIED, linear_factor=4.0),
    GoldenModel("mixtral", "llama", 4, **MOE),
    GoldenModel("mixtral-yarn", "llama", 25, yarn_factor=4.0, **SMALL_MOE),
    GoldenModel("olmoe", "olmoe", 6, **MOE, **OLMOE),
    GoldenModel("qwen2moe", "qwen2moe", 27, **MOE, **QWEN2),
    GoldenModel("qwen3moe", "qwen3moe", 28, **MOE, **QWEN3),
    GoldenModel("qwen3moe-linear", "qwen3moe", 9, linear_factor=2.5, **SMALL_MOE, **QWEN3),
    GoldenModel(
        "qwen3moe-yarn", "qwen3moe", 10, yarn_factor=8.0, attn_factor=0.8, **SMALL_MOE, **QWEN3
    ),
    GoldenModel("llama-q4_0", "llama", 11, ("Q4_0",), width=64),
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
    *QWEN4EXP_MODELS,
    *GLM5_NEXT_MODELS,
    *GROVEMOE_MODELS,
    *KIMI_K3_MODELS,
    *DEEPSEEK4_MODELS,
    *MINIMAX_M3_MODELS,
)

PARTLY: tuple[Model, ...] = (BLOCKS,)
"""Models of which llama.cpp is an oracle at some positions alone; their tests say which."""


def _add_metadata(writer: gguf.GGUFWriter, model: GoldenModel) -> None:
    add_sizes(writer, model, model.width, kv_heads=model.kv_heads)
    writer.add_layer_norm_rms_eps(EPSILON)
    if model.head_dim * HEADS != model.hidden:
        add_head_dim(writer, model.head_dim)
    if model.experts:
        add_experts(writer, model)
    if model.arch.startswith("qwen"):
        writer.add_expert_feed_forward_length(model.width)
    if model.shared:
        writer.add_expert_shared_feed_forward_length(model.shared)
    _add_rope(writer, model)


def _add_rope(writer: gguf.GGUFWriter, model: GoldenModel) -> None:
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_rope_freq_base(model.rope_base)
    if model.linear_factor:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(model.linear_factor)
    if model.yarn_factor:
        add_yarn(writer, model.yarn_factor)
    if model.attn_factor:
        writer.add_rope_scaling_attn_factors(model.attn_factor)


def _attention(model: GoldenModel) -> Iterator[TensorSpec]:
    query, key = HEADS * model.head_dim, model.kv_heads * model.head_dim
    between: Iterator[TensorSpec] = iter(())
    if model.qk_norm:
        per_head = model.qk_norm == "head"
        between = head_norms(*(model.head_dim,) * 2) if per_head else head_norms(query, key)
    return attention(model.hidden, query, key, biases=model.qkv_bias, between=between)


def _experts(model: GoldenModel) -> Iterator[TensorSpec]:
    yield from mixture(model)
    if model.shared:
        yield "ffn_gate_inp_shexp.weight", (model.hidden,), model.hidden**-0.5
        yield from swiglu(model.hidden, model.shared, "_shexp")
