"""Golden models of mixtures of which some layers see a window alone."""

from __future__ import annotations

import gguf

from golden.assembled import Assembled
from golden.keys import add_sigmoid, add_yarn
from golden.recipe import EXPERTS, TIED

MIXED = (True, False) * 3
"""Three layers of each kind."""


def _experts(writer: gguf.GGUFWriter, model: Assembled) -> None:
    writer.add_expert_feed_forward_length(model.width)


def _mixture(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _experts(writer, model)
    writer.add_leading_dense_block_count(model.lead)
    add_sigmoid(writer, 1.3)


def _shared(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _mixture(writer, model)
    writer.add_expert_shared_count(model.shared // model.width)


def _exaone(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _mixture(writer, model)
    writer.add_expert_shared_feed_forward_length(model.shared)
    writer.add_expert_shared_count(1)


def _mellum(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _experts(writer, model)
    add_yarn(writer)


def _maple(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _experts(writer, model)
    writer.add_rope_freq_base_swa(500.0)
    writer.add_rope_dimension_count_swa(model.head_dim - 4)
    writer.add_swiglu_clamp_exp([0.7, 0.0, 1.1, 0.5, 0.9, 0.6][: model.layers])


def _laguna(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _mixture(writer, model)
    writer.add_expert_shared_feed_forward_length(model.shared)
    writer.add_rope_freq_base_swa(500.0)
    writer.add_rope_dimension_count_swa(model.head_dim)
    add_yarn(writer)


def _step35(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _mixture(writer, model)
    writer.add_expert_shared_feed_forward_length(model.shared)
    writer.add_rope_freq_base_swa(500.0)
    writer.add_swiglu_clamp_exp([0.0, 0.4, 0.0, 0.5, 0.3, 0.6][: model.layers])
    writer.add_swiglu_clamp_shexp([0.5, 0.0, 0.4, 0.3, 0.0, 0.6][: model.layers])


def _mimo2(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _experts(writer, model)
    writer.add_rope_freq_base_swa(500.0)
    writer.add_float32("mimo2.attention.value_scale", 0.7)


def _cohere(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _shared(writer, model)
    writer.add_logit_scale(0.8)


def _smallthinker(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _experts(writer, model)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


BIASED = {"selection_bias": "exp_probs_b.bias"}
EXAONE = {"arch": "exaone-moe", "keys": _exaone, "qk_norm": True, "lead": 1, **BIASED}
MELLUM = {"arch": "mellum", "keys": _mellum, "qk_norm": True}
MAPLE = {"arch": "maple", "keys": _maple, "qk_norm": True}
POST_NORMS = ("post_attention_norm", "post_ffw_norm")
AFMOE = {"arch": "afmoe", "keys": _shared, "qk_norm": True, "lead": 1, "gates": "number", **BIASED}
AFMOE |= {"more_norms": POST_NORMS}
LAGUNA = {"arch": "laguna", "keys": _laguna, "qk_norm": True, "lead": 1, **BIASED}
STEP35 = {"arch": "step35", "keys": _step35, "qk_norm": True, "lead": 1, "gates": "head", **BIASED}
MIMO2 = {"arch": "mimo2", "keys": _mimo2, "lead": 1, "sinks": True, **BIASED}
COHERE = {"arch": "cohere2moe", "keys": _cohere, "lead": 1, "ffn_norm": ""}
SMALL = {"arch": "smallthinker", "keys": _smallthinker, "hidden": 32}
SIX = {"layers": 6, "windowed": MIXED, "hidden": 32}
NINE = {"layers": 9, "windowed": (False, True, True, True) * 2 + (False,)}
BLOCKS = {"width": 32, "dense_width": 64, "head_dim": 32, "hidden": 64, "used": EXPERTS}
"""Rows of whole blocks, and no choice of experts that rounding could turn."""
BLOCKS |= {"layers": 3, "windowed": (True, False, True)}
OF_KINDS = {"heads": (4, 2, 4, 2, 6, 2)}
LAGUNA_6 = LAGUNA | SIX | OF_KINDS | {"gates": "head", "turned": 8}
LAGUNA_6 |= {"windowed": (False, True) * 3}  # llama.cpp takes what is turned from the first layer
LAGUNA_3 = LAGUNA | BLOCKS | {"gates": "number"}

WINDOW_MODELS: tuple[Assembled, ...] = (
    Assembled("exaone-moe", seed=621, shared=24, **SIX, **EXAONE),
    Assembled("exaone-moe-q8_0", seed=622, types=("Q8_0",), shared=32, **(EXAONE | BLOCKS)),
    Assembled("mellum", seed=623, **SIX, **MELLUM),
    Assembled("mellum-q8_0", seed=624, types=("Q8_0",), **(MELLUM | BLOCKS)),
    Assembled("maple", seed=625, **SIX, **MAPLE),
    Assembled("maple-mxfp4", seed=626, types=("Q8_0", "MXFP4"), **(MAPLE | BLOCKS)),
    Assembled("afmoe", seed=627, shared=32, **SIX, **AFMOE),
    Assembled("afmoe-q8_0", seed=628, types=("Q8_0",), shared=64, **(AFMOE | BLOCKS)),
    Assembled("laguna", seed=629, shared=24, **LAGUNA_6),
    Assembled("laguna-q8_0", seed=630, types=("Q8_0",), shared=32, **LAGUNA_3),
    Assembled("step35", seed=631, shared=24, rope_factors=8, **OF_KINDS, **SIX, **STEP35),
    Assembled("step35-q8_0", seed=632, types=("Q8_0",), shared=32, **(STEP35 | BLOCKS)),
    Assembled("mimo2", seed=633, head_dim=24, value_dim=16, turned=8, **SIX, **MIMO2),
    Assembled("mimo2-q8_0", seed=634, types=("Q8_0",), joined=True, turned=8, **(MIMO2 | BLOCKS)),
    Assembled("cohere2moe", seed=635, shared=32, eps_key="layer", tied=TIED, **SIX, **COHERE),
    Assembled("cohere2moe-q8_0", seed=636, types=("Q8_0",), shared=64, **(COHERE | BLOCKS)),
    Assembled("smallthinker", seed=637, **NINE, **SMALL),
    Assembled("smallthinker-q4_0", seed=638, types=("Q4_0",), **(SMALL | BLOCKS)),
)
