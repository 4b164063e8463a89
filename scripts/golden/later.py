"""Golden models of later mixtures whose layers are all alike."""

from __future__ import annotations

from collections.abc import Iterator

import gguf

from golden.assembled import Assembled
from golden.files import TensorSpec
from golden.keys import add_granite_scales, add_rope_sections, add_yarn
from golden.parts import norms, swiglu
from golden.recipe import EXPERTS, HEADS, TIED


def _experts(writer: gguf.GGUFWriter, model: Assembled) -> None:
    writer.add_expert_feed_forward_length(model.width)


def _qwen3vl(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _experts(writer, model)
    add_rope_sections(writer, model.head_dim // 2)
    writer.add_num_deepstack_layers(3)


def _shared(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _experts(writer, model)
    writer.add_leading_dense_block_count(model.lead)
    writer.add_expert_shared_count(model.shared // model.width)
    writer.add_expert_weights_scale(1.3)


def _bailing(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _shared(writer, model)
    writer.add_expert_weights_norm(True)


def _sigmoid(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _bailing(writer, model)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def _hy_v3(writer: gguf.GGUFWriter, model: Assembled) -> None:
    """No key says how the router gates, and one layer predicts further tokens."""
    _experts(writer, model)
    writer.add_block_count(model.layers + 1)
    writer.add_nextn_predict_layers(1)
    writer.add_expert_shared_feed_forward_length(model.shared)
    writer.add_expert_weights_norm(True)
    writer.add_expert_weights_scale(1.3)


def _arctic(writer: gguf.GGUFWriter, model: Assembled) -> None:
    writer.add_feed_forward_length(model.width)


def _arctic_extras(model: Assembled, layer: int) -> Iterator[TensorSpec]:
    for name in ("gate", "up", "down"):
        yield f"ffn_{name}.weight", (model.hidden, model.hidden), model.hidden**-0.5


def _dbrx(writer: gguf.GGUFWriter, model: Assembled) -> None:
    writer.add_feed_forward_length(model.width)
    writer.add_clamp_kqv(1.2)


def _llama4(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _experts(writer, model)
    writer.add_interleave_moe_layer_step(model.moe_every)


def _granite_swa(writer: gguf.GGUFWriter, model: Assembled) -> None:
    writer.add_feed_forward_length(model.width)
    add_granite_scales(writer)
    writer.add_expert_shared_feed_forward_length(SHARED)
    turned = [(False, True, True)[i % 3] for i in range(model.layers)]
    writer.add_array("granite_swa.attention.rope_pattern", turned)


def _fused_shared(model: Assembled, layer: int) -> Iterator[TensorSpec]:
    yield "ffn_up_shexp.weight", (2 * SHARED, model.hidden), model.hidden**-0.5
    yield "ffn_down_shexp.weight", (model.hidden, SHARED), 1.5 * SHARED**-0.5


def _minimax_01(writer: gguf.GGUFWriter, model: Assembled) -> None:
    writer.add_feed_forward_length(model.width)
    writer.add_residual_scale(1.3)
    writer.add_full_attention_interval(2)


def _lightning(model: Assembled, layer: int) -> Iterator[TensorSpec]:
    inner = HEADS * model.head_dim
    yield from norms(model.hidden, "attn_norm")
    yield "attn_qkv.weight", (3 * inner, model.hidden), model.hidden**-0.5
    yield "attn_gate.weight", (inner, model.hidden), model.hidden**-0.5
    yield "attn_norm_2.weight", (inner,), 0.3
    yield "attn_output.weight", (model.hidden, inner), inner**-0.5
    yield from norms(model.hidden, "ffn_norm")
    yield from model.mixture()


def _grok(writer: gguf.GGUFWriter, model: Assembled) -> None:
    """As Grok 2: bounds that are reached, and YaRN."""
    _experts(writer, model)
    writer.add_embedding_scale(1.7)
    writer.add_logit_scale(1.3)
    writer.add_float32("grok.attention.output_scale", 0.4)
    writer.add_attn_logit_softcapping(2.0)
    writer.add_final_logit_softcapping(5.0)
    add_yarn(writer)
    writer.add_rope_scaling_yarn_ext_factor(1.0)
    writer.add_rope_scaling_yarn_beta_fast(4.0)
    writer.add_rope_scaling_yarn_beta_slow(0.5)


def _grok_dense(model: Assembled, layer: int) -> Iterator[TensorSpec]:
    return swiglu(model.hidden, model.dense_width)


def _grok_1(writer: gguf.GGUFWriter, model: Assembled) -> None:
    """An old file, without keys of its own."""
    writer.add_feed_forward_length(model.width)


QWEN3VL = {"arch": "qwen3vlmoe", "keys": _qwen3vl, "qk_norm": True, "used": 2}
BAILING = {"arch": "bailingmoe", "keys": _bailing}
DEEPSEEK = {"arch": "deepseek", "keys": _shared, "lead": 1, "layers": 4}
BIASED = {"qk_norm": True, "lead": 1, "layers": 4}
DOTS1 = {"arch": "dots1", "keys": _sigmoid, "kv_heads": 4, "selection_bias": "exp_probs_b.bias"}
HY_V3 = {"arch": "hy_v3", "keys": _hy_v3, "selection_bias": "exp_probs_b"}
DOTS1, HY_V3 = DOTS1 | BIASED, HY_V3 | BIASED
BLOCKS = {"width": 32, "dense_width": 64, "head_dim": 32}  # rows of whole blocks
ARCTIC = {"arch": "arctic", "keys": _arctic, "own": _arctic_extras}
ARCTIC |= {"more_norms": ("ffn_norm_exps",)}
DBRX = {"arch": "dbrx", "keys": _dbrx, "joined": True, "eps_key": "layer"}
DBRX |= {"ffn_norm": "attn_output_norm"}
LLAMA4 = {"arch": "llama4", "keys": _llama4, "moe_every": 2, "used": 1}
GRANITE = {"arch": "granite_swa", "keys": _granite_swa, "own": _fused_shared, "sinks": True}
GROK_1 = {"arch": "grok", "keys": _grok_1}
GROK_1 |= {"more_norms": ("attn_output_norm", "layer_output_norm")}
GROK = {"arch": "grok", "keys": _grok, "own": _grok_dense}
GROK |= {"more_norms": ("attn_output_norm", "post_ffw_norm")}
MINIMAX = {"arch": "minimax-01", "keys": _minimax_01, "turned": 8, "replaces": _lightning}
SHARED = 32
SURE = {"used": EXPERTS, "layers": 3}  # no choice of experts that rounding could turn
ONE = BLOCKS | {"layers": 4, "experts": 1}
SIX = {"layers": 6, "windowed": (True, False) * 3, "hidden": 32}
THREE = {"windowed": (True, False, True)}
BLOCKS = BLOCKS | SURE
SQUARE = BLOCKS | {"head_dim": 16}

LATER_MODELS: tuple[Assembled, ...] = (
    Assembled("qwen3vlmoe", seed=601, **QWEN3VL),
    Assembled("qwen3vlmoe-q8_0", seed=602, types=("Q8_0",), **(QWEN3VL | BLOCKS)),
    Assembled("bailingmoe", seed=603, shared=32, head_dim=24, **BAILING),
    Assembled("bailingmoe-q8_0", seed=604, types=("Q8_0",), shared=64, **(BAILING | BLOCKS)),
    Assembled("deepseek", seed=605, shared=32, tied=TIED, **DEEPSEEK),
    Assembled(
        "deepseek-q5_0",
        seed=606,
        types=("Q5_0",),
        shared=64,
        **(DEEPSEEK | SQUARE),
    ),
    Assembled("dots1", seed=607, shared=32, head_dim=24, **DOTS1),
    Assembled("dots1-q8_0", seed=608, types=("Q8_0",), shared=64, **(DOTS1 | BLOCKS)),
    Assembled("hy_v3", seed=609, shared=24, **HY_V3),
    Assembled("arctic", seed=611, **ARCTIC),
    Assembled("arctic-q8_0", seed=612, types=("Q8_0",), **(ARCTIC | SQUARE)),
    Assembled("dbrx", seed=613, **DBRX),
    Assembled("dbrx-q4_1", seed=614, types=("Q4_1",), **(DBRX | SQUARE)),
    Assembled("llama4", seed=615, layers=12, shared=16, **(LLAMA4 | {"hidden": 32})),
    Assembled("llama4-q8_0", seed=616, types=("Q8_0",), shared=32, **(LLAMA4 | ONE)),
    Assembled("grok", seed=693, **GROK),
    Assembled("grok-1", seed=694, **GROK_1),
    Assembled("grok-q8_0", seed=695, types=("Q8_0",), **(GROK | SQUARE)),
    Assembled("granite_swa", seed=617, **SIX, **GRANITE),
    Assembled("granite_swa-q8_0", seed=618, types=("Q8_0",), **(GRANITE | BLOCKS | THREE)),
    Assembled("minimax-01", seed=619, **MINIMAX, **{"hidden": 32, "layers": 6}),
    Assembled("minimax-01-q8_0", seed=620, types=("Q8_0",), **(MINIMAX | BLOCKS)),
    Assembled("hy_v3-q8_0", seed=610, types=("Q8_0",), shared=32, **(HY_V3 | BLOCKS)),
)
