"""Write a GGUF file of a real model's shape, with random weights: for measuring speed, not sense.

The default is Qwen3-30B-A3B cut to 6 layers, in the mixture of Q4_K and Q6_K that llama.cpp calls
Q4_K_M. Blocks are random bytes with scales that keep the hidden states near 1, so that every
kernel meets ordinary numbers. The vocabulary is copied from a GGUF file that has one.

    python scripts/bench/synthetic.py vocabulary.gguf out.gguf [--layers 6]
    python scripts/bench/synthetic.py vocabulary.gguf out.gguf --type IQ2_XXS  # the experts'
    python scripts/bench/synthetic.py vocabulary.gguf out.gguf --shape qwen35moe --experts 256
    python scripts/bench/synthetic.py vocabulary.gguf out.gguf --shape gpt-oss --experts 32
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from moestream.gguf import GGUFFile
from moestream.quants import GGMLQuantizationType as QType
from moestream.quants import block_layout, dequantize, row_bytes

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.shapes import SHAPES, Weight
from golden.files import add_value

SCALES_AT = {QType.TQ1_0: 52, QType.TQ2_0: 64, QType.Q2_K: 80, QType.Q3_K: 108}
"""Where d lies in a block, if not at 0."""
MINIMA = {
    QType.Q2_K: (82, 1.5),
    QType.Q4_1: (2, -7.5),
    QType.Q5_1: (2, -15.5),
    QType.Q5_K: (2, 15.5),
}
"""Where the scale of minimums lies, and how many d it is so that the values' mean is 0."""


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
    elif weight.type == QType.Q6_K:
        # Signed 8-bit scales times codes of -32 to 31 deviate by about 1370.
        set_half(blocks, 208, deviation / 1370)
    else:
        set_deviation(blocks, weight.type, deviation)
    return raw.reshape(*weight.shape[:-1], -1)


def set_deviation(blocks: NDArray[np.uint8], type: QType, deviation: float) -> None:
    """Give all blocks the scale that makes random codes deviate so much: measured on some."""
    sample = blocks[:1024].copy()
    set_scale(sample, type, 1.0)
    set_scale(blocks, type, deviation / float(dequantize(sample, type).std()))


def set_scale(blocks: NDArray[np.uint8], type: QType, value: float) -> None:
    """Write d into every block, and what centres its values."""
    if type == QType.NVFP4:  # four scales of a byte, whose unit is 2^-3 from 1 on
        exponent = np.clip(round(float(np.log2(value))) + 7, 1, 14)
        blocks[:, :4] = int(exponent) << 3
    elif type == QType.IQ1_M:  # four bits at the top of each of four words
        for i in range(4):
            nibble = int(np.float16(value).view(np.uint16)) >> (4 * i) & 15
            blocks[:, 49 + 2 * i] = blocks[:, 49 + 2 * i] & 15 | nibble << 4
    else:
        set_half(blocks, SCALES_AT.get(type, 0), value)
        if type in MINIMA:
            offset, scales = MINIMA[type]
            set_half(blocks, offset, scales * value)


def set_half(blocks: NDArray[np.uint8], offset: int, value: float) -> None:
    """Write one float16 into every block."""
    blocks[:, offset : offset + 2] = np.array([value], np.float16).view(np.uint8)


def add_vocabulary(writer: gguf.GGUFWriter, vocabulary: GGUFFile) -> None:
    """The vocabulary as it is in the other file."""
    for key, value in vocabulary.metadata.items():
        if key.startswith("tokenizer."):
            add_value(writer, key, value)


def write(args: argparse.Namespace) -> None:
    """Write the file, a tensor at a time."""
    shape = SHAPES[args.shape]
    writer = gguf.GGUFWriter(args.output, args.shape)
    shape.add_keys(writer, args.layers + args.further, args.experts)
    if args.further:
        writer.add_uint32(f"{args.shape}.nextn_predict_layers", 1)
    with GGUFFile.open(args.vocabulary) as source:
        vocab_size = len(source.get("tokenizer.ggml.tokens", list))
        add_vocabulary(writer, source)
    tensors = list(shape.weights(vocab_size, args.layers, args.experts))
    if args.further:
        tensors += shape.further(tensors, args.layers)
    if args.type:
        experts = QType[args.type]
        tensors = [
            replace(weight, type=experts) if weight.name.endswith("_exps.weight") else weight
            for weight in tensors
        ]
    for weight in tensors:
        # Told as numbers, not as bytes, of which the package would look up the type: it lacks some.
        writer.add_tensor_info(
            weight.name, weight.shape, np.dtype(np.float32), n_bytes(weight), raw_dtype=weight.type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(args.seed)
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
    parser.add_argument("--type", choices=[type.name for type in QType], help="of the experts")
    parser.add_argument("--further", action="store_true", help="a layer for further tokens, too")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args)
    print(f"{args.output}: {args.output.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
