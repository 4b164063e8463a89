"""Golden models with a layer that predicts a further token, and it as a model of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from streamed import GOLDEN

from oracle.gguf_parts import Entry, Parts, take_apart

MODELS = ("glm4moe", "deepseek2-v3", "qwen3next")
LAYER, HIDDEN = 3, 64
_F32 = 0


class Floats:
    """The tensors of a golden model of float32, by name; shapes are NumPy's."""

    def __init__(self, name: str) -> None:
        self.parts = take_apart(GOLDEN / f"{name}.gguf")
        self.arrays = {}
        for entry in self.parts.entries:
            assert entry.type == _F32
            count = int(np.prod(entry.dims))
            data = np.frombuffer(self.parts.data, np.float32, count, entry.offset)
            self.arrays[entry.name.decode()] = data.reshape(entry.dims[::-1])

    def set(self, **keys: object) -> None:
        """Change metadata by the last part of its name."""
        for key in self.parts.keys:
            short = key.name.decode().rpartition(".")[2]
            if short in keys:
                key.value = keys[short]

    def write(self, path: Path) -> Path:
        parts, data = Parts(self.parts.keys), bytearray()
        for name, array in self.arrays.items():
            parts.entries.append(Entry(name.encode(), list(array.shape[::-1]), _F32, len(data)))
            data += np.ascontiguousarray(array, np.float32).tobytes()
            data += bytes(-len(data) % 32)
        parts.data = bytes(data)
        path.write_bytes(bytes(parts))
        return path


def with_layer(name: str) -> Floats:
    """The model; those that lack such a layer get one like their own, of other numbers."""
    model, random = Floats(name), np.random.default_rng(5)
    own = f"blk.{LAYER}."
    if own + "nextn.eh_proj.weight" not in model.arrays:
        for each in [n for n in model.arrays if n.startswith(f"blk.{LAYER - 1}.")]:
            array = model.arrays[each]
            shuffled = random.permutation(array.reshape(-1)).reshape(array.shape)
            model.arrays[own + each.split(".", 2)[2]] = shuffled
        join = 0.1 * random.standard_normal((HIDDEN, 2 * HIDDEN))
        model.arrays[own + "nextn.eh_proj.weight"] = join
        for norm in ("enorm", "hnorm", "shared_head_norm"):
            scales = 1 + 0.3 * random.standard_normal(HIDDEN)
            model.arrays[f"{own}nextn.{norm}.weight"] = scales
    return model


def alone(name: str, hidden: np.ndarray, tokens: list[int]) -> Floats:
    """The layer as a model of one layer, whose token n is what it is fed at place n.

    ``hidden`` (T, E) are the states that the model came to, normed; ``tokens`` those after them.
    """
    model, own = with_layer(name), f"blk.{LAYER}."
    arrays = model.arrays

    def norm(x: np.ndarray, weight: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 0.02) * arrays[own + weight]

    fed = np.concatenate(
        [
            norm(arrays["token_embd.weight"][tokens], "nextn.enorm.weight"),
            norm(hidden, "nextn.hnorm.weight"),
        ],
        axis=1,
    )
    table = np.zeros_like(arrays["token_embd.weight"])
    table[: len(tokens)] = fed @ arrays[own + "nextn.eh_proj.weight"].T
    head_norm = arrays.get(own + "nextn.shared_head_norm.weight", arrays["output_norm.weight"])
    kept = {n.replace(own, "blk.0."): a for n, a in arrays.items() if n.startswith(own)}
    model.arrays = {n: a for n, a in kept.items() if ".nextn." not in n}
    model.arrays |= {"token_embd.weight": table, "output_norm.weight": head_norm}
    model.arrays["output.weight"] = arrays["output.weight"]
    model.set(block_count=1, nextn_predict_layers=0, leading_dense_block_count=0)
    model.set(full_attention_interval=1)
    return model
