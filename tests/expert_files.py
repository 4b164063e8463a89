"""Small files of experts with bytes that tell where they are from, for the streaming tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from golden.files import finish

LAYERS = (1, 2)  # layer 0 is dense
EXPERTS = 6


def add_experts(
    add: Callable[..., None], layer: int, shape: tuple[int, int, int], *, fused: bool
) -> None:
    """Add a layer's matrices, of gate's ``shape``; it and up may be one."""
    experts, width, hidden = shape
    add(f"blk.{layer}.ffn_down_exps.weight", experts, hidden, width)
    if fused:
        add(f"blk.{layer}.ffn_gate_up_exps.weight", experts, 2 * width, hidden)
    else:
        add(f"blk.{layer}.ffn_gate_exps.weight", experts, width, hidden)
        add(f"blk.{layer}.ffn_up_exps.weight", experts, width, hidden)


def write_experts(
    path: Path, *, fused: bool = False, shards: int = 1, width: int = 48, hidden: int = 96
) -> Path:
    """Write random F32 experts; returns the path of the (first) file."""
    most = -(-5 * len(LAYERS) // shards) if shards > 1 else 0
    writer = GGUFWriter(path, "llama", split_max_tensors=most)
    random = np.random.default_rng(1)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.random(shape, np.float32))

    for layer in LAYERS:
        add(f"blk.{layer}.attn_norm.weight", 13)  # so that nothing is aligned to pages
        add_experts(add, layer, (EXPERTS, width, hidden), fused=fused)
    finish(writer)
    if path.exists():
        return path
    return next(iter(sorted(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))))
