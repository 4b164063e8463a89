"""What the metadata of single architectures may and may not say, and what follows from it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden.files import CONTEXT
from moestream.backends.reference import ReferenceBackend
from moestream.errors import ModelFormatError, MoestreamError, UnsupportedModelError
from moestream.gguf import GGUFFile
from moestream.layers.attention import Temperature
from moestream.layers.cache import state_bytes
from moestream.layers.weights import Weights
from moestream.models import load_model, read_config, used_names

GOLDEN = Path(__file__).parent / "data" / "golden"
OPS = ReferenceBackend()


@contextmanager
def changed(name: str, keys: dict[str, Any]) -> Iterator[GGUFFile]:
    """A golden model with some keys changed, or left out (None)."""
    with GGUFFile.open(GOLDEN / f"{name}.gguf") as file:
        architecture = file.metadata["general.architecture"]
        metadata = dict(file.metadata) | {f"{architecture}.{key}": keys[key] for key in keys}
        file.metadata = {key: value for key, value in metadata.items() if value is not None}
        yield file


@pytest.mark.parametrize(
    ("name", "keys", "error", "said"),
    [
        ("qwen3vlmoe", {"rope.dimension_sections": [2, 2, 1, 0]}, UnsupportedModelError, "without"),
        ("qwen3vlmoe", {"rope.dimension_sections": None}, ModelFormatError, "dimension_sections"),
        ("deepseek", {"expert_gating_func": 2}, UnsupportedModelError, "0 or 1: softmax"),
        ("bailingmoe", {"expert_gating_func": 2}, UnsupportedModelError, "0 or 1: softmax"),
        ("bailingmoe", {"expert_shared_count": None}, ModelFormatError, "expert_shared_count"),
        ("mellum", {"expert_gating_func": 2}, UnsupportedModelError, "0 or 1: softmax"),
        ("maple", {"swiglu_clamp_exp": [0.1]}, ModelFormatError, "1 values, .* each of 6"),
        ("maple", {"swiglu_clamp_exp": [-1.0] * 6}, ModelFormatError, "less than 0"),
        ("maple", {"swiglu_clamp_exp": None}, ModelFormatError, "swiglu_clamp_exp"),
        ("laguna", {"attention.head_count": [4]}, ModelFormatError, "1 values, .* each of 6"),
        ("step35", {"expert_gating_func": 3}, UnsupportedModelError, "func is 3"),
        ("llama4", {"expert_used_count": 2}, UnsupportedModelError, "1: one expert a token"),
        ("llama4", {"attention.sliding_window": 0}, UnsupportedModelError, "8192: stretches"),
        ("llama4", {"interleave_moe_layer_step": 0}, ModelFormatError, "layer_step is 0"),
        ("dbrx", {"attention.clamp_kqv": None}, ModelFormatError, "clamp_kqv"),
        ("cohere2moe", {"attention.layer_norm_epsilon": None}, ModelFormatError, "norm_epsilon"),
        ("granite_swa", {"attention.sliding_window": 0}, ModelFormatError, "window is 0"),
        ("nemotron_h_moe", {"ssm.inner_size": 63}, ModelFormatError, "63, .* 8 heads"),
        ("nemotron_h_moe", {"ssm.group_count": 3}, ModelFormatError, "8 heads .* in 3 groups"),
        ("granitehybrid", {"ssm.conv_kernel": None}, ModelFormatError, "conv_kernel"),
        ("granitehybrid", {"ssm.state_size": 10**6}, ModelFormatError, "no dimension of a tensor"),
        ("kimi-linear", {"kda.head_dim": 10**6}, ModelFormatError, "no dimension of a tensor"),
        ("bailingmoe3", {"kda.gate_lower_bound": 1.0}, ModelFormatError, "expected less than 0"),
        ("hy_v4", {"hyper_connection.count": 10**6}, ModelFormatError, "no dimension of a tensor"),
        ("hy_v4", {"hyper_connection.magnitude": None}, ModelFormatError, "magnitude"),
        ("hy_v4", {"attention.indexer.types": [0, 1, 1, 1]}, ModelFormatError, "first layer no"),
        ("qwen4exp", {"hyper_connection.count": 10**6}, ModelFormatError, "no dimension of a te"),
        ("qwen4exp", {"ple.layers": [1]}, ModelFormatError, "layer with a delta net"),
        ("qwen4exp", {"ple.layers": [0, 2]}, UnsupportedModelError, "supported is one"),
        ("qwen4exp", {"ple.ngram_size": 1}, ModelFormatError, "2 to 8 tokens"),
        ("qwen4exp", {"ple.heads_per_ngram": 3}, ModelFormatError, "6 heads of 8 do not make rows"),
        ("qwen4exp", {"ple.head_offsets": [0, 97]}, ModelFormatError, "4 whole numbers"),
        ("qwen4exp", {"ple.head_vocab_sizes": [97, 101, 103, 999]}, ModelFormatError, "has 411 r"),
        ("qwen4exp", {"attention.compress_ratios": [5] * 6}, ModelFormatError, "not whole blocks"),
        ("glm5-next", {"attention.indexer.top_k": 13}, ModelFormatError, "whole blocks of 3"),
        (
            "glm5-next",
            {"attention.indexer.types": [1, 0, 1, 1, 1, 1]},
            ModelFormatError,
            "no index",
        ),
        ("glm5-next", {"rope.dimension_count": 8}, UnsupportedModelError, "0: nothing is turned"),
        (
            "glm5-next",
            {"attention.indexer.kpool_select_tail": False},
            UnsupportedModelError,
            "last block is always seen",
        ),
        ("glm5-next", {"kda.gate_lower_bound": 1.0}, ModelFormatError, "and at most 0"),
        ("kimi-k3", {"attn_res.block_size": 0}, ModelFormatError, "block_size is 0"),
        ("kimi-k3", {"activation.situ_beta": 0.0}, ModelFormatError, "situ_beta is 0"),
        ("minimax-m3", {"attention.indexer.head_count": 4}, ModelFormatError, "expected 2 heads"),
        ("minimax-m3", {"attention.indexer.block_size": 0}, ModelFormatError, "block_size is 0"),
        ("grovemoe", {"experts_per_group": 3}, ModelFormatError, "3, by which 8 experts"),
        ("deepseek4", {"attention.output_group_count": 3}, ModelFormatError, "4 heads do not"),
        (
            "deepseek4",
            {"attention.compress_ratios": [0, 4, 8] * 3},
            UnsupportedModelError,
            "ratios has 8; supported are 0, 4 and 128",
        ),
        ("deepseek4", {"attention.compress_rope_freq_base": 1.0}, ModelFormatError, "more than 1"),
        ("grok", {"attn_logit_softcapping": 0.0}, ModelFormatError, "attn_logit_softcapping is 0"),
        ("grok", {"rope.scaling.yarn_ext_factor": 0.5}, UnsupportedModelError, "1: YaRN mixes as"),
        ("bailingmoe3", {"kda.safe_gate": False}, UnsupportedModelError, "True: decays that are"),
    ],
)
def test_keys_that_cannot_be(
    name: str, keys: dict[str, Any], error: type[MoestreamError], said: str
) -> None:
    with changed(name, keys) as file, pytest.raises(error, match=said):
        read_config(file)


def test_llama4_sees_stretches_that_are_not_supported() -> None:
    with changed("llama4", {"context_length": 1 << 20}) as file:
        assert read_config(file).context_length == 8192
        load_model(file, OPS, 8192)
        with pytest.raises(
            UnsupportedModelError, match=r"up to 8192 tokens .* use -c 8192 or less"
        ):
            load_model(file, OPS, 8193)


def test_heads_of_a_layer_divide_among_its_keys() -> None:
    heads = {"attention.head_count": [4, 2, 4, 2, 6, 3]}
    with changed("laguna", heads) as file, pytest.raises(ModelFormatError, match="layer 5 has 3"):
        load_model(file, OPS, CONTEXT)


def test_a_gate_has_one_row_a_head_or_one_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Weights, "width", lambda *_: 5)
    said = r"blk\.0\.attn_gate.*5 rows, expected one a head, 4, or one a number, 64"
    with changed("laguna", {}) as file, pytest.raises(ModelFormatError, match=said):
        used_names(file)


def test_windows_are_of_all_but_one_of_four_where_the_file_does_not_say() -> None:
    pattern = {"attention.sliding_window_pattern": None}
    every = {"mellum": [3], "laguna": [0, 4], "cohere2moe": [0, 4], "afmoe": [3]}
    for name, full in every.items():
        with changed(name, pattern) as file:
            windowed = read_config(file).windowed
        assert [i for i, sees in enumerate(windowed) if not sees] == full


def test_smallthinkers_window_is_of_one_length() -> None:
    for window, expected in ((9, 4096), (0, 0)):
        with changed("smallthinker", {"attention.sliding_window": window}) as file:
            assert read_config(file).window == expected


def test_queries_grow_by_the_stretch() -> None:
    factors = Temperature(0.1, 4, 1)(np.arange(12))
    expected = 1 + 0.1 * np.log([1] * 3 + [2] * 4 + [3] * 4 + [4])
    np.testing.assert_allclose(factors, expected, rtol=1e-6)


def test_layers_that_are_networks_remember_nothing() -> None:
    with GGUFFile.open(GOLDEN / "nemotron_h_moe.gguf") as file:
        shapes = read_config(file).state_shapes()
    kept = [state_bytes([shape], 256, ("f16", "f16")) for shape in shapes]
    mamba = 4 * (3 * (64 + 2 * 2 * 16) + 64 * 16)
    attended = 2 * 256 * 2 * 24 * 2
    of_kind = {"M": mamba, "A": attended, "E": 0}
    assert kept == [of_kind[kind] for kind in "MEAEMEMAEMEAE"]


def test_grok_1_has_factors_that_old_files_do_not_say() -> None:
    with GGUFFile.open(GOLDEN / "grok-1.gguf") as file:
        config = read_config(file)
    factors = config.embedding_scale, config.attention_scale, config.logit_scale
    np.testing.assert_allclose(factors, (78.3836718, 0.0883883476, 0.5773502692))
    assert (config.attention_cap, config.logit_cap) == (30, 0)


def test_streams_count_where_rows_are_planned_for() -> None:
    for name, streams in (("hy_v4", 4), ("deepseek32", 1)):
        with GGUFFile.open(GOLDEN / f"{name}.gguf") as file:
            config = read_config(file)
        assert config.row_size == streams * config.hidden_size
