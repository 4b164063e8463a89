"""Golden models of later mixtures whose layers are all alike."""

from __future__ import annotations

import gguf

from golden.assembled import EXPERTS, Assembled


def _experts(writer: gguf.GGUFWriter, model: Assembled) -> None:
    writer.add_expert_feed_forward_length(model.width)


def _qwen3vl(writer: gguf.GGUFWriter, model: Assembled) -> None:
    _experts(writer, model)
    pairs = model.head_dim // 2
    sections = [pairs // 3 + (i < pairs % 3) for i in range(3)]
    writer.add_rope_dimension_sections([*sections, 0])
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


QWEN3VL = {"arch": "qwen3vlmoe", "keys": _qwen3vl, "qk_norm": True, "used": 2}
BAILING = {"arch": "bailingmoe", "keys": _bailing}
DEEPSEEK = {"arch": "deepseek", "keys": _shared, "lead": 1, "layers": 4}
BIASED = {"qk_norm": True, "lead": 1, "layers": 4}
DOTS1 = {"arch": "dots1", "keys": _sigmoid, "kv_heads": 4, "selection_bias": "exp_probs_b.bias"}
HY_V3 = {"arch": "hy_v3", "keys": _hy_v3, "selection_bias": "exp_probs_b"}
DOTS1, HY_V3 = DOTS1 | BIASED, HY_V3 | BIASED
BLOCKS = {"width": 32, "dense_width": 64, "head_dim": 32}  # rows of whole blocks
SURE = {"used": EXPERTS, "layers": 3}  # no choice of experts that rounding could turn
BLOCKS |= SURE
SQUARE = BLOCKS | {"head_dim": 16}

LATER_MODELS: tuple[Assembled, ...] = (
    Assembled("qwen3vlmoe", seed=601, **QWEN3VL),
    Assembled("qwen3vlmoe-q8_0", seed=602, types=("Q8_0",), **(QWEN3VL | BLOCKS)),
    Assembled("bailingmoe", seed=603, shared=32, head_dim=24, **BAILING),
    Assembled("bailingmoe-q8_0", seed=604, types=("Q8_0",), shared=64, **(BAILING | BLOCKS)),
    Assembled("deepseek", seed=605, shared=32, tied=True, **DEEPSEEK),
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
    Assembled("hy_v3-q8_0", seed=610, types=("Q8_0",), shared=32, **(HY_V3 | BLOCKS)),
)
