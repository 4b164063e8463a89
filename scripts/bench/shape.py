"""What is told of a real model's shape: dimensions, and the tensors of so many of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gguf

from moestream.quants import GGMLQuantizationType as QType

Part = tuple[str, tuple[int, ...], QType]
"""Of a layer: a tensor's name there, its shape and its type."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor to be written; ``shape`` in NumPy order."""

    name: str
    shape: tuple[int, ...]
    type: QType


def shared_mixture(hidden: int, width: int, experts: int, better: QType) -> Iterator[Part]:
    """A network of experts beside one that all tokens go through, in Q4_K but for ``better``."""
    f32, q4 = QType.F32, QType.Q4_K
    yield "ffn_gate_inp.weight", (experts, hidden), f32
    yield "ffn_gate_exps.weight", (experts, width, hidden), q4
    yield "ffn_up_exps.weight", (experts, width, hidden), q4
    yield "ffn_down_exps.weight", (experts, hidden, width), better
    yield "ffn_gate_inp_shexp.weight", (hidden,), f32
    yield "ffn_gate_shexp.weight", (width, hidden), q4
    yield "ffn_up_shexp.weight", (width, hidden), q4
    yield "ffn_down_shexp.weight", (hidden, width), better


@dataclass(frozen=True, slots=True)
class Shape:
    """One model: ``keys`` by the names of gguf's writer, and the tensors.

    ``weights`` takes the size of the vocabulary, layers and experts; tensors come in the order of
    the file. Of the experts a layer has, ``used`` run. ``by_layer`` adds keys that so many layers
    are told by, or that the writer has no name for.
    """

    name: str
    keys: dict[str, object]
    used: int
    weights: Callable[[int, int, int], Iterator[Weight]]
    by_layer: Callable[[gguf.GGUFWriter, int], None] | None = None

    def further(self, tensors: list[Weight], layers: int) -> list[Weight]:
        """A layer that predicts a further token: like the fourth, which attends, and its own."""
        like, own, hidden = "blk.3.", f"blk.{layers}.", self.keys["embedding_length"]
        assert isinstance(hidden, int)
        found = [
            Weight(own + each.name.removeprefix(like), each.shape, each.type)
            for each in tensors
            if each.name.startswith(like)
        ]
        found.append(Weight(f"{own}nextn.eh_proj.weight", (hidden, 2 * hidden), QType.Q4_K))
        norms = ("enorm", "hnorm", "shared_head_norm")
        return found + [Weight(f"{own}nextn.{n}.weight", (hidden,), QType.F32) for n in norms]

    def add_keys(self, writer: gguf.GGUFWriter, layers: int, experts: int) -> None:
        """Write the dimensions of so many layers and experts."""
        counts = {"expert_count": experts, "expert_used_count": min(self.used, experts)}
        keys = {"name": f"{self.name} shape, random weights", "block_count": layers}
        for key, value in (keys | self.keys | counts).items():
            getattr(writer, f"add_{key}")(value)
        if self.by_layer is not None:
            self.by_layer(writer, layers)
