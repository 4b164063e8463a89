"""Named access to a model's tensors, checked against the shapes that the config promises.

A layer asks by GGUF name and expected shape, so a file whose tensors do not fit its own metadata
is refused here, with the tensor's name, instead of failing in the arithmetic.
"""

from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from moestream.backends import (
    Activation,
    Array,
    Backend,
    ExpertBiases,
    ExpertTensors,
    Matrices,
    Matrix,
)
from moestream.errors import ModelFormatError
from moestream.gguf import GGUFFile, GGUFHeader, Tensor
from moestream.quants import GGMLQuantizationType, dequantize

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"
PER_LAYER = "per_layer_token_embd.weight"
_SCALED = tuple(
    f"{name}.weight"
    for name in (
        *("attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv", "attn_gate"),
        *("ffn_gate", "ffn_up", "ffn_down", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"),
        *("ssm_in", "ssm_out", "ssm_alpha", "ssm_beta", "output"),
    )
)
"""Matrices that llama.cpp multiplies by a tensor of one value, where the file has one.

It reads tensors of the ``input_scale`` too, which no product on a CPU uses; nor does one here.
"""


def is_tied(file: GGUFHeader) -> bool:
    """Whether the token embedding is the output's weights too; else single rows of it are read."""
    return OUTPUT not in file.tensors


def read_by_row(file: GGUFHeader) -> set[str]:
    """Tensors that stay in the file, of which single rows are read."""
    return ({PER_LAYER} & file.tensors.keys()) | (set() if is_tied(file) else {EMBEDDING})


def table_bytes(file: GGUFHeader) -> int:
    """Bytes of the table of which each token reads rows besides its embedding; 0 without."""
    info = file.tensors.get(PER_LAYER)
    return 0 if info is None else info.n_bytes


class Weights:
    """The tensors under one prefix (``blk.3.`` or none) of a file, loaded into a backend."""

    def __init__(self, file: GGUFFile, backend: Backend, prefix: str = "") -> None:
        self.file = file
        self.backend = backend
        self.prefix = prefix

    def layer(self, index: int) -> "Weights":
        """The tensors of layer ``index``."""
        return Weights(self.file, self.backend, f"blk.{index}.")

    def has(self, name: str) -> bool:
        """Whether the file holds a tensor of this name."""
        return self.prefix + name in self.file.tensors

    def matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """A dense weight matrix, resident."""
        return self.backend.matrix(self._tensor(name, (rows, columns)))

    def embedding(self, rows: int, columns: int) -> Matrix:
        """The token embedding, of which nothing but single rows is read."""
        return self.backend.embedding(self._tensor(EMBEDDING, (rows, columns)))

    def matrix_rows(self, name: str, rows: int, columns: int, picked: NDArray[np.intp]) -> Matrix:
        """Some rows of a matrix that the file joins with others, in the order of ``picked``."""
        whole = self._tensor(name, (rows, columns))
        part = replace(whole, shape=(len(picked), columns), data=whole.data[picked])
        return self.backend.matrix(part)

    def table(self, name: str, rows: int, columns: int) -> Array:
        """A small matrix that is no linear map, as float32 (rows, columns)."""
        return self.backend.vector(self._tensor(name, (rows, columns)))

    def column(self, name: str, rows: int) -> Array:
        """One number a row, (rows, 1), with that axis in the file or without."""
        flat = len(self.file.tensor_info(self.prefix + name).shape) == 1
        found = self.vector(name, rows) if flat else self.table(name, rows, 1)
        return found.reshape(rows, 1)

    def rows(self, name: str, columns: int) -> Tensor:
        """A table of rows of this length, however many, as it lies in the file."""
        return self._tensor(name, (self.width(name), columns))

    def matrices(self, fused: str, rows: dict[str, int], columns: int) -> list[Matrix]:
        """Matrices of one input, by name and number of rows, which a file may have as one."""
        if not self.has(fused):
            return [self.matrix(name, size, columns) for name, size in rows.items()]
        whole, stop, parts = self._tensor(fused, (sum(rows.values()), columns)), 0, []
        for size in rows.values():
            stop += size
            data = whole.data[stop - size : stop]
            part = replace(whole, shape=(size, columns), data=data)
            parts.append(self.backend.matrix(part))
        return parts

    def heads(self, name: str, num_heads: int, rows: int, columns: int) -> Matrices:
        """One matrix a head."""
        tensor = self._tensor(name, (num_heads, rows, columns))
        return self.backend.head_matrices(
            [Tensor(tensor.name, tensor.type, (rows, columns), data) for data in tensor.data]
        )

    def heads_of_pairs(
        self, name: str, num_heads: int, first: int, second: int, columns: int
    ) -> tuple[Matrices, Matrices]:
        """Each head's first rows, transposed and so in float32, and those after, as they are."""
        tensor = self._tensor(name, (num_heads * (first + second), columns))
        heads = tensor.data.reshape(num_heads, first + second, -1)
        turned, others = [], []
        for data in heads:
            floats = np.ascontiguousarray(dequantize(data[:first], tensor.type).T)
            decoded = Tensor(
                tensor.name, GGMLQuantizationType.F32, (columns, first), floats.view(np.uint8)
            )
            turned.append(decoded)
            others.append(Tensor(tensor.name, tensor.type, (second, columns), data[first:]))
        return self.backend.head_matrices(turned), self.backend.head_matrices(others)

    def vector(self, name: str, size: int) -> Array:
        """A norm weight or bias, as float32."""
        return self.backend.vector(self._tensor(name, (size,)))

    def optional_vector(self, name: str, size: int) -> Array | None:
        """A bias that this file may lack."""
        return self.vector(name, size) if self.has(name) else None

    def optional_floats(self, name: str, size: int) -> NDArray[np.float32] | None:
        """A small vector that this file may lack, for arithmetic outside the backend."""
        return self.backend.to_numpy(self.vector(name, size)) if self.has(name) else None

    def row(self, name: str, columns: int) -> Matrix:
        """A matrix of one output, which GGUF may store without its axis of length one."""
        return self.matrix(name, 1, columns)

    def width(self, name: str) -> int:
        """Outputs of a matrix of which architectures have several widths."""
        return self.file.tensor_info(self.prefix + name).shape[0]

    def experts(
        self,
        num_experts: int,
        width: int,
        hidden: int,
        activation: Activation = "silu",
        *,
        limits: tuple[float, float] = (0.0, 0.0),
        own_gate: bool = True,
        kind: str = "exps",
    ) -> ExpertTensors:
        """A layer's routed experts, mapped, from separate or fused gate and up tensors.

        Their biases, where the file has them, are loaded. ``kind`` is how their names end; others
        than the usual have none.
        """
        down = self._tensor(f"ffn_down_{kind}.weight", (num_experts, hidden, width))
        if self.has(f"ffn_gate_up_{kind}.weight"):
            fused = self._tensor(f"ffn_gate_up_{kind}.weight", (num_experts, 2 * width, hidden))
            gate, up = _rows(fused, 0, width), _rows(fused, width, 2 * width)
        else:
            up = self._tensor(f"ffn_up_{kind}.weight", (num_experts, width, hidden))
            gate = up
            if own_gate:
                gate = self._tensor(f"ffn_gate_{kind}.weight", (num_experts, width, hidden))
        if kind != "exps":
            return ExpertTensors(gate, up, down, activation, None, None, *limits)
        biases = self._expert_biases(num_experts, width, hidden) if own_gate else None
        scales = self._expert_scales(num_experts, own_gate)
        return ExpertTensors(gate, up, down, activation, biases, scales, *limits)

    def _expert_scales(self, num_experts: int, own_gate: bool) -> tuple[Array, Array] | None:
        """What products with gate and up are multiplied by, (N,) each; ones for what is not there.

        Source: llama.cpp's ``build_moe_ffn``. Where gate and up are one, up's is for both.
        """
        fused = self.has("ffn_gate_up_exps.weight") or not own_gate
        names = [f"ffn_{part}_exps.scale" for part in (("up", "up") if fused else ("gate", "up"))]
        if not any(self.has(name) for name in names):
            return None
        ones = np.ones(num_experts, np.float32)
        ones_tensor = Tensor("", GGMLQuantizationType.F32, (num_experts,), ones.view(np.uint8))
        gate, up = (
            self.backend.vector(
                self._tensor(name, (num_experts,)) if self.has(name) else ones_tensor
            )
            for name in names
        )
        return gate, up

    def _expert_biases(self, num_experts: int, width: int, hidden: int) -> ExpertBiases | None:
        """Biases of gate, up and down, (N, F) twice and (N, E): all of them or none."""
        if not self.has("ffn_down_exps.bias"):
            return None
        sizes = {"gate": width, "up": width, "down": hidden}
        gate, up, down = (
            self.backend.vector(self._tensor(f"ffn_{name}_exps.bias", (num_experts, size)))
            for name, size in sizes.items()
        )
        return gate, up, down

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor as it lies in the file, for what is made of parts of it."""
        tensor = self.file.tensor(self.prefix + name)
        if (scale := self._scale(name)) != 1:
            tensor = replace(tensor, scale=scale)
        if tensor.shape == shape:
            return tensor
        # GGUF writes and leaves out axes of length one as it likes.
        if _without_ones(tensor.shape) != _without_ones(shape):
            raise ModelFormatError(
                f"{self.file.path}: tensor {tensor.name!r} has shape {tensor.shape}, "
                f"but the metadata asks for {shape}"
            )
        data = tensor.data.reshape(*shape[:-1], tensor.data.shape[-1])
        return replace(tensor, shape=shape, data=data)

    def _scale(self, name: str) -> float:
        """What a dense matrix is multiplied by besides: a tensor of one value, or 1."""
        scale = self.prefix + name.removesuffix(".weight") + ".scale"
        if not name.endswith(_SCALED) or scale not in self.file.tensors:
            return 1.0
        tensor = self.file.tensor(scale)
        values = dequantize(tensor.data, tensor.type)
        return float(values.ravel()[0]) if prod(tensor.shape) == 1 and values.size else 1.0


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without axes of length one, but for the fastest."""
    return *(size for size in shape[:-1] if size != 1), shape[-1]


def _rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    """The same rows of every expert, as a view."""
    experts, _, columns = tensor.shape
    shape = (experts, stop - start, columns)
    return Tensor(tensor.name, tensor.type, shape, tensor.data[:, start:stop])
