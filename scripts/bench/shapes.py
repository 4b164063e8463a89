"""Real models' shapes: their dimensions, and the tensors of so many of their layers.

Knows names, sizes and types; what stands in the tensors is synthetic.py's affair.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gguf

from moestream.quants import GGMLQuantizationType as QType

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.shape import Shape, Weight, shared_mixture
from bench.shapes_2026 import NEMOTRON_H_MOE, QWEN4EXP

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, WIDTH = 2048, 32, 4, 128, 768


def qwen3moe_weights(vocab_size: int, layers: int, experts: int) -> Iterator[Weight]:
    """All tensors of Qwen3-30B-A3B."""
    yield Weight("token_embd.weight", (vocab_size, HIDDEN), QType.Q4_K)
    yield Weight("output.weight", (vocab_size, HIDDEN), QType.Q6_K)
    yield Weight("output_norm.weight", (HIDDEN,), QType.F32)
    for layer in range(layers):
        # Q4_K_M gives half of the layers better values and down projections.
        better = QType.Q6_K if layer % 2 == 0 else QType.Q4_K
        queries, pairs = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
        for name, shape, kind in (
            ("attn_norm", (HIDDEN,), QType.F32),
            ("attn_q", (queries, HIDDEN), QType.Q4_K),
            ("attn_k", (pairs, HIDDEN), QType.Q4_K),
            ("attn_v", (pairs, HIDDEN), better),
            ("attn_output", (HIDDEN, queries), QType.Q4_K),
            ("attn_q_norm", (HEAD_DIM,), QType.F32),
            ("attn_k_norm", (HEAD_DIM,), QType.F32),
            ("ffn_norm", (HIDDEN,), QType.F32),
            ("ffn_gate_inp", (experts, HIDDEN), QType.F32),
            ("ffn_gate_exps", (experts, WIDTH, HIDDEN), QType.Q4_K),
            ("ffn_up_exps", (experts, WIDTH, HIDDEN), QType.Q4_K),
            ("ffn_down_exps", (experts, HIDDEN, WIDTH), better),
        ):
            yield Weight(f"blk.{layer}.{name}.weight", shape, kind)


def qwen35moe_weights(vocab_size: int, layers: int, experts: int) -> Iterator[Weight]:
    """All tensors of Qwen3.6-35B-A3B: three delta nets for each layer that attends."""
    f32, q4, q6 = QType.F32, QType.Q4_K, QType.Q6_K
    hidden, width, queries, pairs, head = 2048, 512, 16 * 256, 2 * 256, 256
    channels, values, heads = 2 * 16 * 128 + 32 * 128, 32 * 128, 32
    attention = (
        ("attn_q.weight", (2 * queries, hidden), q4),
        ("attn_k.weight", (pairs, hidden), q4),
        ("attn_v.weight", (pairs, hidden), q6),
        ("attn_output.weight", (hidden, queries), q4),
        ("attn_q_norm.weight", (head,), f32),
        ("attn_k_norm.weight", (head,), f32),
    )
    delta_net = (
        ("attn_qkv.weight", (channels, hidden), q4),
        ("attn_gate.weight", (values, hidden), q4),
        ("ssm_conv1d.weight", (channels, 4), f32),
        ("ssm_dt.bias", (heads,), f32),
        ("ssm_a", (heads,), f32),
        ("ssm_alpha.weight", (heads, hidden), q4),
        ("ssm_beta.weight", (heads, hidden), q4),
        ("ssm_norm.weight", (128,), f32),
        ("ssm_out.weight", (hidden, values), q4),
    )
    yield Weight("token_embd.weight", (vocab_size, hidden), q4)
    yield Weight("output.weight", (vocab_size, hidden), q6)
    yield Weight("output_norm.weight", (hidden,), f32)
    for layer in range(layers):
        better = q6 if layer % 2 == 0 else q4
        for name, shape, kind in (
            ("attn_norm.weight", (hidden,), f32),
            *(attention if layer % 4 == 3 else delta_net),
            ("post_attention_norm.weight", (hidden,), f32),
            *shared_mixture(hidden, width, experts, better),
        ):
            yield Weight(f"blk.{layer}.{name}", shape, kind)


def gpt_oss_weights(vocab_size: int, layers: int, experts: int) -> Iterator[Weight]:
    """All tensors of gpt-oss-20b: experts in MXFP4 as published, the rest in Q8_0."""
    f32, q8, fp4 = QType.F32, QType.Q8_0, QType.MXFP4
    hidden, width, queries, pairs, heads = 2880, 2880, 64 * 64, 8 * 64, 64
    yield Weight("token_embd.weight", (vocab_size, hidden), q8)
    yield Weight("output.weight", (vocab_size, hidden), q8)
    yield Weight("output_norm.weight", (hidden,), f32)
    for layer in range(layers):
        for name, shape, kind in (
            ("attn_norm.weight", (hidden,), f32),
            ("attn_q.weight", (queries, hidden), q8),
            ("attn_q.bias", (queries,), f32),
            ("attn_k.weight", (pairs, hidden), q8),
            ("attn_k.bias", (pairs,), f32),
            ("attn_v.weight", (pairs, hidden), q8),
            ("attn_v.bias", (pairs,), f32),
            ("attn_output.weight", (hidden, queries), q8),
            ("attn_output.bias", (hidden,), f32),
            ("attn_sinks.weight", (heads,), f32),
            ("post_attention_norm.weight", (hidden,), f32),
            ("ffn_gate_inp.weight", (experts, hidden), f32),
            ("ffn_gate_inp.bias", (experts,), f32),
            ("ffn_gate_exps.weight", (experts, width, hidden), fp4),
            ("ffn_gate_exps.bias", (experts, width), f32),
            ("ffn_up_exps.weight", (experts, width, hidden), fp4),
            ("ffn_up_exps.bias", (experts, width), f32),
            ("ffn_down_exps.weight", (experts, hidden, width), fp4),
            ("ffn_down_exps.bias", (experts, hidden), f32),
        ):
            yield Weight(f"blk.{layer}.{name}", shape, kind)


SHAPES = {
    "qwen3moe": Shape(
        "Qwen3-30B-A3B",
        {
            "context_length": 40960,
            "embedding_length": HIDDEN,
            "feed_forward_length": 6144,
            "head_count": HEADS,
            "head_count_kv": KV_HEADS,
            "key_length": HEAD_DIM,
            "value_length": HEAD_DIM,
            "rope_freq_base": 1e6,
            "layer_norm_rms_eps": 1e-6,
            "expert_feed_forward_length": WIDTH,
        },
        8,
        qwen3moe_weights,
    ),
    "qwen35moe": Shape(
        "Qwen3.6-35B-A3B",
        {
            "context_length": 262144,
            "embedding_length": 2048,
            "head_count": 16,
            "head_count_kv": 2,
            "key_length": 256,
            "value_length": 256,
            "rope_freq_base": 1e7,
            "rope_dimension_count": 64,
            "rope_dimension_sections": [11, 11, 10, 0],
            "layer_norm_rms_eps": 1e-6,
            "expert_feed_forward_length": 512,
            "expert_shared_feed_forward_length": 512,
            "ssm_conv_kernel": 4,
            "ssm_state_size": 128,
            "ssm_group_count": 16,
            "ssm_time_step_rank": 32,
            "ssm_inner_size": 32 * 128,
            "full_attention_interval": 4,
        },
        8,
        qwen35moe_weights,
    ),
    "gpt-oss": Shape(
        "gpt-oss-20b",
        {
            "context_length": 131072,
            "embedding_length": 2880,
            "feed_forward_length": 2880,
            "head_count": 64,
            "head_count_kv": 8,
            "key_length": 64,
            "value_length": 64,
            "rope_dimension_count": 64,
            "rope_freq_base": 150000.0,
            "rope_scaling_type": gguf.RopeScalingType.YARN,
            "rope_scaling_factor": 32.0,
            "rope_scaling_orig_ctx_len": 4096,
            "layer_norm_rms_eps": 1e-5,
            "expert_feed_forward_length": 2880,
            "sliding_window": 128,
        },
        4,
        gpt_oss_weights,
    ),
    "nemotron_h_moe": NEMOTRON_H_MOE,
    "qwen4exp": QWEN4EXP,
}
"""By architecture."""
