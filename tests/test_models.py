"""What the metadata and tensors of a model may and may not say."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from golden.files import add_value, finish
from moestream.backends.reference import ReferenceBackend
from moestream.errors import ModelFormatError, MoestreamError, UnsupportedModelError
from moestream.gguf import GGUFFile
from moestream.layers.weights import Weights
from moestream.models import ARCHITECTURES, load_model, read_config

KEYS: dict[str, Any] = {
    "context_length": 128,
    "block_count": 1,
    "embedding_length": 16,
    "feed_forward_length": 24,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
}
DENSE = {
    "token_embd.weight": (32, 16),
    "output_norm.weight": (16,),
    "blk.0.attn_norm.weight": (16,),
    "blk.0.attn_q.weight": (16, 16),
    "blk.0.attn_k.weight": (8, 16),
    "blk.0.attn_v.weight": (8, 16),
    "blk.0.attn_output.weight": (16, 16),
    "blk.0.ffn_norm.weight": (16,),
    "blk.0.ffn_gate.weight": (24, 16),
    "blk.0.ffn_up.weight": (24, 16),
    "blk.0.ffn_down.weight": (16, 24),
}
NORMS = {
    "olmoe": {"blk.0.attn_q_norm.weight": (16,), "blk.0.attn_k_norm.weight": (8,)},
    "qwen3moe": {"blk.0.attn_q_norm.weight": (4,), "blk.0.attn_k_norm.weight": (4,)},
}
OWN_KEYS: dict[str, dict[str, Any]] = {
    "gemma4": {
        "attention.key_length": 4,
        "attention.value_length": 4,
        "attention.key_length_swa": 4,
        "attention.value_length_swa": 4,
        "attention.sliding_window": 16,
        "attention.sliding_window_pattern": [True],
    },
}
"""Keys that only one architecture must have."""
PLAIN = ("llama", "olmoe", "qwen2moe", "qwen3moe")
"""Architectures without keys of their own."""
OPS = ReferenceBackend()


@pytest.fixture
def model(tmp_path: Path):
    """Write a one-layer model with some keys and tensors changed (None: left out) and open it."""

    def write(
        architecture: str = "llama",
        keys: dict[str, Any] | None = None,
        tensors: dict[str, tuple[int, ...] | None] | None = None,
        vocabulary: int = 0,
    ) -> GGUFFile:
        path = tmp_path / "model.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        for key, value in {
            **KEYS,
            **OWN_KEYS.get(architecture, {}),
            **(keys or {}),
        }.items():
            name = f"{architecture}.{key}"
            add_value(writer, name, value)
        if vocabulary:
            writer.add_token_list([str(id) for id in range(vocabulary)])
        for name, shape in {**DENSE, **(tensors or {})}.items():
            if shape is not None:
                writer.add_tensor(name, np.ones(shape, np.float32))
        finish(writer)
        return GGUFFile.open(path)

    return write


def test_dimensions_and_defaults(model) -> None:
    config = read_config(model(keys={"attention.head_count_kv": None}))
    assert (config.num_heads, config.kv_heads, config.head_dim) == (4, (4,), 4)
    assert (config.vocab_size, config.num_experts) == (32, 0)
    assert (config.rope.base, config.rope.scaling, config.rope.dimensions) == (10000.0, "none", 4)


def test_linear_factor_of_old_files(model) -> None:
    rope = read_config(model(keys={"rope.scale_linear": 4.0})).rope
    assert (rope.scaling, rope.factor) == ("linear", 4.0)


def test_yarn_keys(model) -> None:
    keys = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 2.0,
        "rope.scaling.original_context_length": 64,
        "rope.scaling.attn_factor": 0.5,
    }
    rope = read_config(model(keys=keys)).rope
    assert (rope.factor, rope.original_context, rope.attention_factor) == (2.0, 64, 0.5)


@pytest.mark.parametrize(
    ("keys", "error", "said"),
    [
        ({"embedding_length": None}, ModelFormatError, r"llama\.embedding_length"),
        ({"block_count": 0}, ModelFormatError, r"llama\.block_count is 0"),
        ({"attention.head_count_kv": 3}, ModelFormatError, "4 attention heads .* 3 key/value"),
        ({"expert_count": [2, 4]}, UnsupportedModelError, "differs from layer to layer"),
        (
            {"block_count": 3, "attention.head_count_kv": [2, 4]},
            ModelFormatError,
            "2 values, .* each of 3",
        ),
        ({"rope.dimension_count": 3}, ModelFormatError, "rope.dimension_count is 3"),
        ({"rope.dimension_count": 6}, ModelFormatError, "rope.dimension_count is 6"),
        ({"rope.scaling.type": "longrope"}, UnsupportedModelError, "'longrope'"),
        ({"rope.freq_base": float("nan")}, ModelFormatError, "freq_base is nan"),
        ({"rope.freq_base": 1.0}, ModelFormatError, r"freq_base is 1\.0, expected more than 1"),
        ({"rope.scaling.original_context_length": 0}, ModelFormatError, "context_length is 0"),
        ({"expert_count": 4, "expert_used_count": 5}, ModelFormatError, "5 experts .* of 4"),
        ({"expert_count": 4}, ModelFormatError, "0 experts .* of 4"),
    ],
)
def test_keys_that_make_no_sense(model, keys, error: type[MoestreamError], said: str) -> None:
    with pytest.raises(error, match=said):
        read_config(model(keys=keys))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("attention.causal", False, "True: attention to what came before"),
        ("expert_group_count", 2, "0 or 1: all experts in one group"),
        ("expert_gating_func", 2, "0 or 1: softmax"),
        ("nextn_predict_layers", 1, "0: no layers that predict further tokens"),
    ],
)
@pytest.mark.parametrize("architecture", PLAIN)
def test_keys_that_ask_for_what_is_not_there(
    model, architecture: str, key: str, value: int, expected: str
) -> None:
    said = rf"{architecture}\.{key} is {value}; supported is {expected}; choose another"
    with pytest.raises(UnsupportedModelError, match=said):
        read_config(model(architecture, {key: value}))


@pytest.mark.parametrize(
    ("architecture", "key", "value", "said"),
    [
        ("ernie4_5-moe", "interleave_moe_layer_step", 2, "supported is 1: experts in every"),
        ("gemma4", "attention.shared_kv_layers", 3, "leaves no earlier layer of some kind"),
        ("gemma4", "attention.value_length_swa", 2, "expected the 4 of gemma4.*key_length_swa"),
        ("gemma4", "attention.sliding_window", None, "missing"),
        ("gemma4", "attention.sliding_window_pattern", None, "missing"),
    ],
)
def test_keys_of_one_architecture(
    model, architecture: str, key: str, value: int | None, said: str
) -> None:
    with pytest.raises(MoestreamError, match=rf"{architecture}\.{key}.*{said}"):
        read_config(model(architecture, {key: value}))


def test_gemma4_caps_logits_where_the_file_does_not_say(model) -> None:
    assert read_config(model("gemma4")).logit_cap == 30


@pytest.mark.parametrize(("kind", "context", "other"), [("short", 64, 65), ("long", 65, 64)])
def test_phimoe_turns_by_the_length_of_the_context(
    model, kind: str, context: int, other: int
) -> None:
    keys = {"rope.scaling.original_context_length": 64, "expert_count": 3, "expert_used_count": 2}
    wrong = {f"rope_factors_{kind}.weight": (3,)}
    file = model("phimoe", keys, experts(3, 24, fused=False) | wrong)
    load_model(file, OPS, other)
    with pytest.raises(ModelFormatError, match=rf"rope_factors_{kind}.*\(3,\).*\(2,\)"):
        load_model(file, OPS, context)


@pytest.mark.parametrize(
    "keys",
    [
        {"attention.causal": True, "expert_group_count": 1, "expert_gating_func": 1},
        {"expert_group_count": 0, "expert_gating_func": 0, "nextn_predict_layers": 0},
        # Of these llama.cpp takes no notice in our architectures.
        {"expert_weights_scale": 2.5, "expert_weights_norm": False},
        {"attention.clamp_kqv": 8.0, "attention.scale": 0.5, "attention.max_alibi_bias": 8.0},
        {"attention.sliding_window": 16, "attention.logit_softcapping": 50.0},
        {"logit_scale": 0.5, "residual_scale": 0.5, "embedding_scale": 2.0, "pooling_type": 1},
    ],
)
@pytest.mark.parametrize("architecture", PLAIN)
def test_keys_without_effect(model, architecture: str, keys: dict[str, Any]) -> None:
    plain = read_config(model(architecture))
    assert read_config(model(architecture, keys)) == plain


def test_yarn_takes_its_constants_from_no_key(model) -> None:
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
    ignored = {
        "rope.scaling.yarn_ext_factor": 0.0,
        "rope.scaling.yarn_attn_factor": 0.5,
        "rope.scaling.yarn_beta_fast": 0.0,
        "rope.scaling.yarn_beta_slow": float("nan"),
        "rope.scaling.yarn_log_multiplier": 0.1,
    }
    plain = read_config(model(keys=yarn))
    assert plain.rope.scaling == "yarn"
    assert plain.rope.factor == 4
    assert read_config(model(keys=yarn | ignored)) == plain
    honoured = read_config(model(keys=yarn | {"rope.scaling.attn_factor": 0.5}))
    assert honoured.rope.attention_factor == 0.5


def test_the_old_key_of_a_linear_factor_yields_to_the_new(model) -> None:
    def factor(**values: float) -> float:
        keys = {f"rope.{key}": value for key, value in values.items()}
        return read_config(model(keys=keys)).rope.factor

    assert factor(scale_linear=2.0) == 2
    assert factor(**{"scaling.factor": 4.0, "scale_linear": 2.0}) == 4
    assert factor(**{"scaling.factor": 0.0, "scale_linear": 2.0}) == 1


@pytest.mark.parametrize("vocabulary", [31, 33])
def test_embedding_and_vocabulary_are_of_one_size(model, vocabulary: int) -> None:
    assert read_config(model(vocabulary=32)).vocab_size == 32
    with pytest.raises(ModelFormatError, match=rf"has 32 rows.* {vocabulary} tokens"):
        read_config(model(vocabulary=vocabulary))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"blk.0.ffn_up.weight": None}, "blk.0.ffn_up.weight"),
        ({"blk.0.ffn_up.weight": (16, 24)}, r"blk.0.ffn_up.weight.*\(16, 24\).*\(24, 16\)"),
        ({"blk.0.attn_q.bias": (15,)}, r"attn_q.bias.*\(15,\).*\(16,\)"),
        ({"blk.0.attn_v.weight": (4, 16)}, r"attn_v.weight.*\(4, 16\).*\(8, 16\)"),
        ({"token_embd.weight": None}, "token_embd.weight"),
        ({"output.weight": (31, 16)}, r"output.weight.*\(31, 16\).*\(32, 16\)"),
    ],
)
def test_tensors_that_do_not_fit_the_metadata(model, tensors, said: str) -> None:
    with pytest.raises(ModelFormatError, match=said):
        load_model(model(tensors=tensors), OPS)


def test_a_mixture_without_experts_is_an_error(model) -> None:
    file = model("qwen3moe", tensors=NORMS["qwen3moe"])
    with pytest.raises(ModelFormatError, match=r"qwen3moe\.expert_count is missing"):
        load_model(file, OPS)


def test_unknown_architecture_names_the_known(model) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(model("mamba"), OPS)
    assert "'mamba'" in str(caught.value)
    assert all(name in str(caught.value) for name in ARCHITECTURES)


SHARED: dict[str, tuple[int, ...] | None] = {
    "blk.0.ffn_gate_shexp.weight": (24, 16),
    "blk.0.ffn_up_shexp.weight": (24, 16),
    "blk.0.ffn_down_shexp.weight": (16, 24),
}


def experts(num: int, width: int, *, fused: bool) -> dict[str, tuple[int, ...] | None]:
    shapes: dict[str, tuple[int, ...] | None] = {
        "blk.0.ffn_gate_inp.weight": (num, 16),
        "blk.0.ffn_down_exps.weight": (num, 16, width),
    }
    if fused:
        shapes["blk.0.ffn_gate_up_exps.weight"] = (num, 2 * width, 16)
    else:
        shapes["blk.0.ffn_gate_exps.weight"] = (num, width, 16)
        shapes["blk.0.ffn_up_exps.weight"] = (num, width, 16)
    return shapes


@pytest.mark.parametrize(
    ("architecture", "own_width", "expected"),
    [
        ("llama", 8, 24),
        ("olmoe", 8, 24),
        ("qwen2moe", 8, 8),
        ("qwen3moe", 8, 8),
        ("qwen2moe", 0, 12),
        ("qwen3moe", 0, 12),
    ],
)
def test_width_of_experts(model, architecture: str, own_width: int, expected: int) -> None:
    keys = {
        "expert_count": 3,
        "expert_used_count": 2,
        "expert_feed_forward_length": own_width,
        "expert_shared_feed_forward_length": 24,
    }
    tensors = experts(3, 7, fused=False) | SHARED
    with pytest.raises(ModelFormatError, match=rf"\(3, 16, 7\).*\(3, 16, {expected}\)"):
        load_model(model(architecture, keys, {**NORMS.get(architecture, {}), **tensors}), OPS)


def test_a_shared_expert_without_its_gate_is_an_error(model) -> None:
    tensors = experts(3, 24, fused=False) | SHARED
    keys = {
        "expert_count": 3,
        "expert_used_count": 2,
        "expert_feed_forward_length": 24,
        "expert_shared_feed_forward_length": 24,
    }
    file = model("qwen2moe", keys=keys, tensors=tensors)
    with pytest.raises(ModelFormatError, match="ffn_gate_inp_shexp"):
        load_model(file, OPS)


@pytest.mark.parametrize("fused", [False, True])
def test_fused_and_separate_gate_and_up_give_the_same_views(model, fused: bool) -> None:
    keys = {"expert_count": 3, "expert_used_count": 2}
    file = model(keys=keys, tensors=experts(3, 24, fused=fused))
    views = Weights(file, OPS).layer(0).experts(3, 24, 16)
    assert views.gate.data.shape == views.up.data.shape == (3, 24, 64)
    assert views.down.shape == (3, 16, 24)
    gate, up = (part.data.__array_interface__["data"][0] for part in (views.gate, views.up))
    if fused:
        assert up - gate == 24 * 64  # up's rows follow gate's within the same expert
