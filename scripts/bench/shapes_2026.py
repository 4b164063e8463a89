"""Shapes of models of 2026: Nemotron 3 Nano, and Qwen3.8 Flash-Next with a table of n-grams.

What is not known of Qwen3.8 Flash-Next here is Qwen3-Next's, and its table is 4.2 GB, not 27.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gguf

from moestream.quants import GGMLQuantizationType as QType

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.shape import Part, Shape, Weight, shared_mixture

_F32, _Q4, _Q6, _Q5_0, _Q8 = QType.F32, QType.Q4_K, QType.Q6_K, QType.Q5_0, QType.Q8_0

_KINDS = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
"""Nemotron's layers: Mamba-2, experts, attention."""
_N_HIDDEN, _N_WIDTH, _N_INNER, _N_HEADS, _N_GROUPS, _N_STATE = 2688, 1856, 4096, 64, 8, 128
_N_CHANNELS = _N_INNER + 2 * _N_GROUPS * _N_STATE
_N_PAIRS = 2 * 128


def nemotron_weights(vocab_size: int, layers: int, experts: int) -> Iterator[Weight]:
    """All tensors of Nemotron 3 Nano 30B-A3B; rows that are not whole blocks of 256 fall back."""
    yield Weight("token_embd.weight", (vocab_size, _N_HIDDEN), _Q5_0)
    yield Weight("output.weight", (vocab_size, _N_HIDDEN), _Q8)
    yield Weight("output_norm.weight", (_N_HIDDEN,), _F32)
    for layer, kind in enumerate(_KINDS[:layers]):
        better = _Q8 if layer % 4 == 1 else _Q5_0
        yield Weight(f"blk.{layer}.attn_norm.weight", (_N_HIDDEN,), _F32)
        parts = {"M": _mamba2(), "E": _squares(experts, better), "*": _attention(better)}
        for name, shape, type in parts[kind]:
            yield Weight(f"blk.{layer}.{name}", shape, type)


def _mamba2() -> Iterator[Part]:
    yield "ssm_in.weight", (_N_INNER + _N_CHANNELS + _N_HEADS, _N_HIDDEN), _Q5_0
    yield "ssm_conv1d.weight", (_N_CHANNELS, 4), _F32
    yield "ssm_conv1d.bias", (_N_CHANNELS,), _F32
    yield "ssm_dt.bias", (_N_HEADS,), _F32
    yield "ssm_a", (_N_HEADS, 1), _F32
    yield "ssm_d", (_N_HEADS, 1), _F32
    yield "ssm_norm.weight", (_N_GROUPS, _N_INNER // _N_GROUPS), _F32
    yield "ssm_out.weight", (_N_HIDDEN, _N_INNER), _Q4


def _squares(experts: int, better: QType) -> Iterator[Part]:
    yield "ffn_gate_inp.weight", (experts, _N_HIDDEN), _F32
    yield "exp_probs_b.bias", (experts,), _F32
    yield "ffn_up_exps.weight", (experts, _N_WIDTH, _N_HIDDEN), _Q5_0
    yield "ffn_down_exps.weight", (experts, _N_HIDDEN, _N_WIDTH), better
    yield "ffn_up_shexp.weight", (2 * _N_WIDTH, _N_HIDDEN), _Q5_0
    yield "ffn_down_shexp.weight", (_N_HIDDEN, 2 * _N_WIDTH), better


def _attention(better: QType) -> Iterator[Part]:
    yield "attn_q.weight", (32 * 128, _N_HIDDEN), _Q5_0
    yield "attn_k.weight", (_N_PAIRS, _N_HIDDEN), _Q5_0
    yield "attn_v.weight", (_N_PAIRS, _N_HIDDEN), better
    yield "attn_output.weight", (_N_HIDDEN, 32 * 128), _Q4


def _nemotron_by_layer(writer: gguf.GGUFWriter, layers: int) -> None:
    kinds = _KINDS[:layers]
    writer.add_head_count_kv([2 * (kind == "*") for kind in kinds])
    writer.add_feed_forward_length([_N_WIDTH * (kind == "E") for kind in kinds])


NEMOTRON_H_MOE = Shape(
    "Nemotron 3 Nano 30B-A3B",
    {
        "context_length": 262144,
        "embedding_length": _N_HIDDEN,
        "head_count": 32,
        "key_length": 128,
        "value_length": 128,
        "layer_norm_eps": 1e-5,
        "layer_norm_rms_eps": 1e-5,
        "rope_dimension_count": 128,
        "ssm_conv_kernel": 4,
        "ssm_inner_size": _N_INNER,
        "ssm_state_size": _N_STATE,
        "ssm_time_step_rank": _N_HEADS,
        "ssm_group_count": _N_GROUPS,
        "expert_feed_forward_length": _N_WIDTH,
        "expert_shared_feed_forward_length": 2 * _N_WIDTH,
        "expert_shared_count": 1,
        "expert_weights_norm": True,
        "expert_weights_scale": 2.5,
    },
    6,
    nemotron_weights,
    _nemotron_by_layer,
)

_STREAMS, _RANK, _GRAM, _GRAM_HEADS, _GRAM_LAYER = 4, 128, 3, 8, 1
_HIDDEN, _WIDTH, _KEYS, _VALUES, _DELTA_HEADS = 2048, 512, 16 * 128, 32 * 128, 32
_WIDE = _STREAMS * _HIDDEN
_INDEX_HEADS, _INDEX = 8, 128
_TABLES = (_GRAM - 1) * _GRAM_HEADS
_ROWS = 1_930_051
"""Of each head that looks grams up."""


def qwen4exp_weights(vocab_size: int, layers: int, experts: int) -> Iterator[Weight]:
    """All tensors: three delta nets for each layer that attends, and the table."""
    yield Weight("token_embd.weight", (vocab_size, _HIDDEN), _Q4)
    yield Weight("output.weight", (vocab_size, _HIDDEN), _Q6)
    for name, shape, type in _streams("output_hc"):
        yield Weight(name, shape, type)
    yield Weight("per_layer_token_embd.weight", (_TABLES * _ROWS, _HIDDEN // _TABLES), _Q8)
    for layer in range(layers):
        better = _Q6 if layer % 2 == 0 else _Q4
        for name, shape, type in (
            *_streams("hc_attn", writes=True),
            *(_chosen(better) if layer % 4 == 3 else _delta_net()),
            *(_grams() if layer == _GRAM_LAYER else ()),
            *_streams("hc_ffn", writes=True),
            *shared_mixture(_HIDDEN, _WIDTH, experts, better),
        ):
            yield Weight(f"blk.{layer}.{name}", shape, type)


def _streams(name: str, *, writes: bool = False) -> Iterator[Part]:
    yield f"{name}_norm.weight", (_WIDE,), _F32
    yield f"{name}_down.weight", (_RANK, _WIDE), _Q8
    yield f"{name}_up.weight", (_WIDE, _RANK), _Q8
    if writes:
        yield f"{name}_inject.weight", (_STREAMS, _WIDE), _Q8


def _chosen(better: QType) -> Iterator[Part]:
    queries, pairs = 16 * 256, 2 * 256
    yield "attn_q.weight", (2 * queries, _HIDDEN), _Q4
    yield "attn_k.weight", (pairs, _HIDDEN), _Q4
    yield "attn_v.weight", (pairs, _HIDDEN), better
    yield "attn_output.weight", (_HIDDEN, queries), _Q4
    for norm in ("attn_q_norm", "attn_k_norm"):
        yield f"{norm}.weight", (256,), _F32
    yield "indexer.q_proj.weight", (_INDEX_HEADS * _INDEX, _HIDDEN), _Q4
    yield "indexer.k_proj.weight", (_INDEX, _HIDDEN), _Q4
    for norm in ("q_norm", "k_norm"):
        yield f"indexer.{norm}.weight", (_INDEX,), _F32


def _delta_net() -> Iterator[Part]:
    channels = 2 * _KEYS + _VALUES
    yield "attn_qkv.weight", (channels, _HIDDEN), _Q4
    yield "attn_gate.weight", (_VALUES, _HIDDEN), _Q4
    yield "ssm_conv1d.weight", (channels, 4), _F32
    yield "ssm_dt.bias", (_DELTA_HEADS,), _F32
    yield "ssm_a", (_DELTA_HEADS,), _F32
    yield "ssm_alpha.weight", (_DELTA_HEADS, _HIDDEN), _Q4
    yield "ssm_beta.weight", (_DELTA_HEADS, _HIDDEN), _Q4
    yield "ssm_norm.weight", (128,), _F32
    yield "ssm_out.weight", (_HIDDEN, _VALUES), _Q4


def _grams() -> Iterator[Part]:
    yield "ple_key.weight", (_WIDE, _HIDDEN), _Q4
    yield "ple_value.weight", (_HIDDEN, _HIDDEN), _Q4
    for norm in ("key", "query", "conv"):
        yield f"ple_norm_{norm}.weight", (_WIDE,), _F32
    yield "ple_conv1d.weight", (_WIDE, 4), _F32


def _qwen4exp_by_layer(writer: gguf.GGUFWriter, layers: int) -> None:
    arch, wide = writer.arch, gguf.GGUFValueType.UINT64
    writer.add_uint32(f"{arch}.hyper_connection.count", _STREAMS)
    writer.add_uint32(f"{arch}.hyper_connection.low_rank", _RANK)
    ratios = [64 * (layer % 4 == 3) for layer in range(layers)]
    writer.add_array(f"{arch}.attention.compress_ratios", ratios)
    writer.add_array(f"{arch}.ple.layers", [_GRAM_LAYER])
    single = {"ngram_size": _GRAM, "heads_per_ngram": _GRAM_HEADS, "conv_kernel": 4}
    for key, value in (single | {"eos_token_id": 2}).items():
        writer.add_uint32(f"{arch}.ple.{key}", value)
    listed = {
        "layer_multipliers": [2**45 - 55, 2**45 - 69, 2**45 - 81],
        "head_offsets": [head * _ROWS for head in range(_TABLES)],
        "head_vocab_sizes": [_ROWS] * _TABLES,
    }
    for key, values in listed.items():
        name = f"{arch}.ple.{key}"
        writer.add_key_value(name, values, gguf.GGUFValueType.ARRAY, sub_type=wide)


QWEN4EXP = Shape(
    "Qwen3.8 Flash-Next",
    {
        "context_length": 262144,
        "embedding_length": _HIDDEN,
        "head_count": 16,
        "head_count_kv": 2,
        "key_length": 256,
        "value_length": 256,
        "rope_freq_base": 1e7,
        "rope_dimension_count": 64,
        "rope_dimension_sections": [11, 11, 10, 0],
        "layer_norm_rms_eps": 1e-6,
        "expert_feed_forward_length": _WIDTH,
        "expert_shared_feed_forward_length": _WIDTH,
        "ssm_conv_kernel": 4,
        "ssm_state_size": 128,
        "ssm_group_count": 16,
        "ssm_time_step_rank": _DELTA_HEADS,
        "ssm_inner_size": _VALUES,
        "full_attention_interval": 4,
        "indexer_head_count": _INDEX_HEADS,
        "indexer_key_length": _INDEX,
        "indexer_top_k": 2048,
        "embedding_length_per_layer_input": _HIDDEN // _TABLES,
    },
    10,
    qwen4exp_weights,
    _qwen4exp_by_layer,
)
