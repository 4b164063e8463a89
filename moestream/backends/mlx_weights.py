"""Which of MLX's layouts each GGUF type is given, and the way there.

Owns the table and the sizes that follow from it. Weights are laid out by native code, in memory
that ``mlx.py`` makes; nothing here imports MLX. Scales are float32: a product of a block's own
scales then loses nothing, and MLX computes in the type that its scales have.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moestream import _native
from moestream.backends.expert_tensors import Bytes, ExpertTensors
from moestream.backends.types import Array
from moestream.quants import GGMLQuantizationType as Type


@dataclass(frozen=True, slots=True)
class MLXLayout:
    """``bits`` of a code, or of a float that stays as it is. ``exact``: no value is rounded."""

    mode: Literal["affine", "mxfp4", "nvfp4", "float"]
    bits: int
    exact: bool = True

    @property
    def group(self) -> int:
        """Columns that share a scale: GGUF's own blocks, or parts of them."""
        return 16 if self.mode == "nvfp4" else 32

    def parts(self, columns: int) -> tuple[int, int, int]:
        """Bytes that codes, scales and biases of a row take."""
        codes = columns * self.bits // 8
        if self.mode == "float":
            return codes, 0, 0
        groups = columns // self.group
        return (codes, 4 * groups, 4 * groups) if self.mode == "affine" else (codes, groups, 0)


LAYOUTS = {
    Type.F32: MLXLayout("float", 32),
    Type.F16: MLXLayout("float", 16),
    Type.BF16: MLXLayout("float", 16),
    Type.Q4_0: MLXLayout("affine", 4),
    Type.Q4_1: MLXLayout("affine", 4),
    Type.Q4_K: MLXLayout("affine", 4),
    Type.Q5_0: MLXLayout("affine", 5),
    Type.Q5_1: MLXLayout("affine", 5),
    Type.Q5_K: MLXLayout("affine", 5),
    Type.Q8_0: MLXLayout("affine", 8),
    Type.MXFP4: MLXLayout("mxfp4", 4),
    Type.NVFP4: MLXLayout("nvfp4", 4),
    # Two or three values; IQ1_S has a shift of each 32 columns besides, which is a bias.
    Type.Q1_0: MLXLayout("affine", 2),
    Type.Q2_0: MLXLayout("affine", 2),
    Type.TQ1_0: MLXLayout("affine", 2),
    Type.TQ2_0: MLXLayout("affine", 2),
    Type.IQ1_S: MLXLayout("affine", 2),
    # Odd numbers up to 15, and even ones up to 62, of either sign.
    Type.IQ3_S: MLXLayout("affine", 4),
    Type.IQ3_XXS: MLXLayout("affine", 6),
    # Tables of values that eight bits hold.
    Type.IQ4_NL: MLXLayout("affine", 8),
    Type.IQ4_XS: MLXLayout("affine", 8),
    Type.IQ2_XXS: MLXLayout("affine", 8),
    # Two scales in 32 columns, of which MLX can have one: rounded anew, finely.
    Type.IQ2_XS: MLXLayout("affine", 8, exact=False),
    Type.IQ2_S: MLXLayout("affine", 8, exact=False),
    Type.IQ1_M: MLXLayout("affine", 8, exact=False),
    Type.Q6_K: MLXLayout("affine", 8, exact=False),
    Type.Q3_K: MLXLayout("affine", 8, exact=False),
    Type.Q2_K: MLXLayout("affine", 6, exact=False),
}
"""Of all types that matrices may be stored in."""


def layout_of(type: Type) -> MLXLayout:
    """How weights of a GGUF type are laid out."""
    return LAYOUTS[type]


def laid_out_bytes(type: Type, shape: tuple[int, ...]) -> int:
    """What a tensor takes as it is laid out; a vector is float32."""
    *rows, columns = shape
    row_bytes = sum(layout_of(type).parts(columns)) if rows else 4 * columns
    return math.prod(rows) * row_bytes


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix (rows, columns), or a stack of them (slots, rows, columns), in MLX's arrays.

    ``arrays`` are codes and, unless the layout is of floats, scales and, if affine, biases.
    ``memory`` is the same as bytes that can be written to, an empty array for what is not there.
    """

    type: Type
    layout: MLXLayout
    shape: tuple[int, ...]
    arrays: tuple[Array, ...]
    memory: tuple[Bytes, Bytes, Bytes]
    scale: float = 1.0

    def fill(self, data: Bytes, slot: int | None = None) -> None:
        """Lay out rows of blocks (rows, row_bytes), as the matrix or as one of the stack."""
        parts = self.memory if slot is None else self._slot(slot)
        codes, scales, biases = parts
        threads = _native.physical_cores()
        _native.mlx_encode(data, self.type, self.layout.bits, codes, scales, biases, threads)

    def _slot(self, slot: int) -> tuple[Bytes, ...]:
        return tuple(
            part[slot * (size := part.size // self.shape[0]) : (slot + 1) * size]
            for part in self.memory
        )

    def table(self) -> list[int]:
        """Type, bits, rows, columns, then address and bytes a slot of each part: ``reader.h``."""
        rows, columns = self.shape[-2:]
        places = [
            number
            for part in self.memory
            for number in (part.ctypes.data, part.size // self.shape[0])
        ]
        return [int(self.type), self.layout.bits, rows, columns, *places]


class MLXSlots:
    """``streaming.slots.Slots`` of experts of one shape, in MLX's arrays: one array a matrix.

    Slots are filled by number, by ``fill`` or by the reader's
    threads, and hold their memory as long as this object lives.
    """

    def __init__(self, gate: Weight, up: Weight, down: Weight) -> None:
        self.gate, self.up, self.down = gate, up, down
        self.num_slots = gate.shape[0]
        self.n_bytes = sum(part.size for weight in self.weights for part in weight.memory)
        self.slot_bytes = self.n_bytes // self.num_slots
        self.free = list(range(self.num_slots - 1, -1, -1))

    @property
    def weights(self) -> tuple[Weight, Weight, Weight]:
        """Gate, up and down."""
        return self.gate, self.up, self.down

    def fill(self, tensors: ExpertTensors) -> None:
        """Lay out all experts, each in the slot of its number."""
        for expert in range(self.num_slots):
            for weight, data in zip(self.weights, tensors.matrices(expert), strict=True):
                weight.fill(data, expert)

    def table(self) -> NDArray[np.int64]:
        """Where native threads lay out gate, up and down: (3, 10), see ``Weight.table``."""
        return np.array([weight.table() for weight in self.weights], np.int64)

    def slot_address(self, slot: int) -> int:
        """Slots go by their numbers."""
        return slot

    def trim(self, slot: int) -> bool:
        """MLX has no way to hand a part of an array back: False."""
        return False
