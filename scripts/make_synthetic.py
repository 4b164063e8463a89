"""Write a GGUF file of a real model's shape, with random weights: for measuring speed, not sense.

The default is Qwen3-30B-A3B cut to 6 layers, in the mixture of Q4_K and Q6_K that llama.cpp calls
Q4_K_M. Blocks are random bytes with scales that keep the hidden states near 1, so that every
kernel meets ordinary numbers. The vocabulary is copied from a GGUF file that has one.

    python scripts/make_synthetic.py ggml-vocab-qwen2.gguf synthetic.gguf [--layers 6]
    python scripts/make_synthetic.py ggml-vocab-qwen35.gguf out.gguf --shape qwen35moe --experts 256
    python scripts/make_synthetic.py ggml-vocab-qwen2.gguf out.gguf --shape gpt-oss --experts 32
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as QType
from numpy.typing import NDArray

from moestream.gguf import GGUFFile
from moestream.quants import block_layout, row_bytes

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, WIDTH, CHOSEN = 2048, 32, 4, 128, 768, 8
CONTEXT, ROPE_BASE, EPS = 40960, 1e6, 1e-6


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor to be written; ``shape`` in NumPy order."""

    name: str
    shape: tuple[int, ...]
    type: QType


def weights(vocab_size: int, layers: int, experts: int) -> Iterator[Weight]:
    """All tensors, in the order of the file."""
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
            ("ffn_gate_inp.weight", (experts, hidden), f32),
            ("ffn_gate_exps.weight", (experts, width, hidden), q4),
            ("ffn_up_exps.weight", (experts, width, hidden), q4),
            ("ffn_down_exps.weight", (experts, hidden, width), better),
            ("ffn_gate_inp_shexp.weight", (hidden,), f32),
            ("ffn_gate_shexp.weight", (width, hidden), q4),
            ("ffn_up_shexp.weight", (width, hidden), q4),
            ("ffn_down_shexp.weight", (hidden, width), better),
        ):
            yield Weight(f"blk.{layer}.{name}", shape, kind)


def add_qwen35moe(writer: gguf.GGUFWriter, layers: int, experts: int) -> None:
    """The dimensions of Qwen3.6-35B-A3B."""
    writer.add_name("Qwen3.6-35B-A3B shape, random weights")
    writer.add_block_count(layers)
    writer.add_context_length(262144)
    writer.add_embedding_length(2048)
    writer.add_head_count(16)
    writer.add_head_count_kv(2)
    writer.add_key_length(256)
    writer.add_value_length(256)
    writer.add_rope_freq_base(1e7)
    writer.add_rope_dimension_count(64)
    writer.add_rope_dimension_sections([11, 11, 10, 0])
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_expert_count(experts)
    writer.add_expert_used_count(min(8, experts))
    writer.add_expert_feed_forward_length(512)
    writer.add_expert_shared_feed_forward_length(512)
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_state_size(128)
    writer.add_ssm_group_count(16)
    writer.add_ssm_time_step_rank(32)
    writer.add_ssm_inner_size(32 * 128)
    writer.add_full_attention_interval(4)


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


def add_gpt_oss(writer: gguf.GGUFWriter, layers: int, experts: int) -> None:
    """The dimensions of gpt-oss-20b."""
    writer.add_name("gpt-oss-20b shape, random weights")
    writer.add_block_count(layers)
    writer.add_context_length(131072)
    writer.add_embedding_length(2880)
    writer.add_feed_forward_length(2880)
    writer.add_head_count(64)
    writer.add_head_count_kv(8)
    writer.add_key_length(64)
    writer.add_value_length(64)
    writer.add_rope_dimension_count(64)
    writer.add_rope_freq_base(150000.0)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(32.0)
    writer.add_rope_scaling_orig_ctx_len(4096)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_expert_count(experts)
    writer.add_expert_used_count(min(4, experts))
    writer.add_expert_feed_forward_length(2880)
    writer.add_sliding_window(128)


def n_bytes(weight: Weight) -> int:
    """Size of a tensor in the file."""
    return int(np.prod(weight.shape[:-1])) * row_bytes(weight.type, weight.shape[-1])


def random_data(weight: Weight, rng: np.random.Generator) -> NDArray[np.generic]:
    """Values of about the deviation of a trained matrix: 1 / sqrt(columns); norms are 1."""
    if weight.name.endswith("ssm_a"):  # a rate of decay
        return np.full(weight.shape, -0.1, np.float32)
    if weight.name.endswith(".bias"):
        return rng.standard_normal(weight.shape, np.float32) * np.float32(0.02)
    if len(weight.shape) == 1:
        return np.ones(weight.shape, np.float32)
    deviation = weight.shape[-1] ** -0.5
    if weight.type == QType.F32:
        return rng.standard_normal(weight.shape, np.float32) * np.float32(deviation)
    raw = np.frombuffer(rng.bytes(n_bytes(weight)), np.uint8).copy()
    blocks = raw.reshape(-1, block_layout(weight.type)[1])
    if weight.type == QType.Q4_K:
        # Random 6-bit scales times codes deviate by about 170; the minimums centre them.
        set_half(blocks, 0, deviation / 170)
        set_half(blocks, 2, 7.5 * deviation / 170)
    elif weight.type == QType.Q8_0:
        set_half(blocks, 0, deviation / 74)  # codes of -128 to 127
    elif weight.type == QType.MXFP4:
        # Codes deviate by about 3; the exponent of two that comes nearest.
        blocks[:, 0] = 127 + round(float(np.log2(deviation / 3)))
    else:
        # Q6_K: signed 8-bit scales times codes of -32 to 31 deviate by about 1370.
        set_half(blocks, 208, deviation / 1370)
    return raw.reshape(*weight.shape[:-1], -1)


def set_half(blocks: NDArray[np.uint8], offset: int, value: float) -> None:
    """Write one float16 into every block."""
    blocks[:, offset : offset + 2] = np.array([value], np.float16).view(np.uint8)


def add_qwen3moe(writer: gguf.GGUFWriter, layers: int, experts: int) -> None:
    """The dimensions of Qwen3-30B-A3B."""
    writer.add_name("Qwen3-30B-A3B shape, random weights")
    writer.add_block_count(layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(6144)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_expert_count(experts)
    writer.add_expert_used_count(min(CHOSEN, experts))
    writer.add_expert_feed_forward_length(WIDTH)


SHAPES = {
    "qwen3moe": (add_qwen3moe, weights),
    "qwen35moe": (add_qwen35moe, qwen35moe_weights),
    "gpt-oss": (add_gpt_oss, gpt_oss_weights),
}
"""By architecture: what writes the dimensions, and what lists the tensors."""


def add_vocabulary(writer: gguf.GGUFWriter, vocabulary: GGUFFile) -> None:
    """The vocabulary as it is in the other file."""
    for key, value in vocabulary.metadata.items():
        if not key.startswith("tokenizer."):
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)


def write(
    vocabulary: Path, path: Path, architecture: str, layers: int, experts: int, seed: int
) -> None:
    """Write the file, a tensor at a time."""
    add_dimensions, list_weights = SHAPES[architecture]
    writer = gguf.GGUFWriter(path, architecture)
    add_dimensions(writer, layers, experts)
    with GGUFFile.open(vocabulary) as source:
        vocab_size = len(source.get("tokenizer.ggml.tokens", list))
        add_vocabulary(writer, source)
    tensors = list(list_weights(vocab_size, layers, experts))
    for weight in tensors:
        shape = (*weight.shape[:-1], row_bytes(weight.type, weight.shape[-1]))
        if weight.type == QType.F32:
            writer.add_tensor_info(weight.name, weight.shape, np.dtype(np.float32), n_bytes(weight))
        else:
            writer.add_tensor_info(
                weight.name, shape, np.dtype(np.uint8), n_bytes(weight), raw_dtype=weight.type
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(seed)
    for weight in tensors:
        writer.write_tensor_data(random_data(weight, rng))
    writer.close()


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vocabulary", type=Path, help="GGUF file whose vocabulary to copy")
    parser.add_argument("output", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="qwen3moe", help="architecture")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.vocabulary, args.output, args.shape, args.layers, args.experts, args.seed)
    print(f"{args.output}: {args.output.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
