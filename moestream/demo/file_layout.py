"""Which tensors the demo model has, in which types, and how each is made from the source.

Owns the layout of the built file's tensors. Knows nothing of files being written or of where the
source came from. Every tensor is the same on every machine, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import gguf
import numpy as np
from gguf.quants import quantize
from numpy.typing import NDArray

from moestream.demo.kquants import quantize_q4_k, quantize_q6_k
from moestream.demo.recipe import LayerRecipe
from moestream.gguf import GGUFFile
from moestream.quants import GGMLQuantizationType as Type
from moestream.quants import dequantize, row_bytes

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor of the built file: its name, type, shape of bytes, and how to make it."""

    name: str
    type: Type
    shape: tuple[int, ...]
    make: Callable[[], NDArray[np.generic]]

    @property
    def n_bytes(self) -> int:
        """Size in the file."""
        return int(np.prod(self.shape)) * (4 if self.type == Type.F32 else 1)


def plan(
    source: GGUFFile, recipe: tuple[LayerRecipe, ...], pool: ThreadPoolExecutor
) -> list[list[Planned]]:
    """All tensors of the built file in their order, a list a layer."""
    layers = [_plan_layer(source, i, len(recipe), layer, pool) for i, layer in enumerate(recipe)]
    ends = [[_copied(source, f"{name}.weight")] for name in ("token_embd", "output_norm")]
    return [ends[0], *layers, ends[1]]


def _plan_layer(
    source: GGUFFile, index: int, count: int, recipe: LayerRecipe, pool: ThreadPoolExecutor
) -> list[Planned]:
    block = f"blk.{index}"
    experts, kept = recipe.neurons.shape
    tensors = [_copied(source, f"{block}.{name}.weight") for name in ("attn_norm", "ffn_norm")]
    tensors += [
        _as_q8_0(source, f"{block}.attn_{name}.weight") for name in ("q", "k", "v", "output")
    ]
    shape: tuple[int, ...] = recipe.router_codes.shape
    tensors.append(Planned(f"{block}.ffn_gate_inp.weight", Type.F32, shape, recipe.router))
    for name in ("gate", "up"):
        tensors.append(_rows_of_experts(source, f"{block}.ffn_{name}", recipe))
    down = source.tensor(f"{block}.ffn_down.weight")
    type_ = _down_type(index, count)
    shape = (experts, down.shape[0], row_bytes(type_, kept))

    def make_down() -> Bytes:
        dense = dequantize(down.data, down.type)
        encode = partial(_encode_down, dense, recipe, type_)
        return np.stack(list(pool.map(encode, range(experts))))

    return [*tensors, Planned(f"{block}.ffn_down_exps.weight", type_, shape, make_down)]


def _rows_of_experts(source: GGUFFile, name: str, recipe: LayerRecipe) -> Planned:
    """Gate or up: a neuron is a row there, so its blocks are copied, not encoded again."""
    rows = source.tensor(f"{name}.weight")
    shape = (*recipe.neurons.shape, rows.data.shape[1])
    return Planned(f"{name}_exps.weight", rows.type, shape, lambda: rows.data[recipe.neurons])


def _down_type(index: int, count: int) -> Type:
    """More bits for the first and last eighth and every third layer, as llama.cpp mixes them."""
    more = index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2
    return Type.Q6_K if more else Type.Q4_K


def _encode_down(
    dense: NDArray[np.float32], recipe: LayerRecipe, type_: Type, expert: int
) -> Bytes:
    columns = dense[:, recipe.neurons[expert]] * recipe.column_gains()[expert]
    return quantize_q6_k(columns) if type_ == Type.Q6_K else quantize_q4_k(columns)


def _copied(source: GGUFFile, name: str) -> Planned:
    tensor = source.tensor(name)
    if tensor.type == Type.F32:
        return Planned(name, Type.F32, tensor.shape, lambda: tensor.data.view(np.float32))
    return Planned(name, tensor.type, tensor.data.shape, lambda: tensor.data)


def _as_q8_0(source: GGUFFile, name: str) -> Planned:
    tensor = source.tensor(name)
    shape = (*tensor.shape[:-1], row_bytes(Type.Q8_0, tensor.shape[-1]))

    def make() -> Bytes:
        values = dequantize(tensor.data, tensor.type)
        return np.asarray(quantize(values, gguf.GGMLQuantizationType.Q8_0), np.uint8)

    return Planned(name, Type.Q8_0, shape, make)
