"""What the recipes of all golden models have in common.

Owns the fields that each model is told by, and the order of tensors in a file: those of no layer
first, then layer by layer. Knows no architecture, and nothing of keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

import gguf

from golden.files import VOCAB, TensorSpec

HEADS, KV_HEADS, EXPERTS, CONV = 4, 2, 8, 4
"""What most models have; CONV is how many tokens a convolution sees."""
TIED = 0.25


@dataclass(frozen=True, slots=True)
class Recipe(ABC):
    """One model. An architecture has defaults and fields of its own, keys, and what a layer has.

    `width` is that of an expert, or of the network of a model without; `used` experts run. `lead`
    layers are dense; `moe_every`-th layers alone have experts. `tied` is the deviation of an
    embedding that is the output, too, 0 where the two differ; `rope_factors` says how many.
    """

    name: str
    arch: str
    seed: int
    types: tuple[str, ...] = ("F32",)
    hidden: int = 64
    width: int = 16
    used: int = 3
    experts: int = EXPERTS
    lead: int = 0
    moe_every: int = 1
    tied: float = 0.0
    rope_factors: int = 0

    @property
    @abstractmethod
    def layers(self) -> int:
        """How many."""

    @abstractmethod
    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""

    @abstractmethod
    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Tensors of a layer, by their names in it."""

    @property
    def moe_layers(self) -> list[int]:
        """Those that have experts."""
        if not self.experts:
            return []
        return [i for i in range(self.lead, self.layers) if (i + 1) % self.moe_every == 0]

    def outside(self) -> Iterator[TensorSpec]:
        """Tensors of no layer."""
        yield "token_embd.weight", (VOCAB, self.hidden), self.tied or 1.0
        yield "output_norm.weight", (self.hidden,), 0.3
        if not self.tied:
            yield "output.weight", (VOCAB, self.hidden), 1.5 * self.hidden**-0.5
        if self.rope_factors:
            yield "rope_freqs.weight", (self.rope_factors,), 0.3

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        yield from self.outside()
        for layer in range(self.layers):
            for name, shape, std in self.parts(layer):
                yield f"blk.{layer}.{name}", shape, std


@dataclass(frozen=True, slots=True)
class Counted(Recipe):
    """A model that is told how many layers it has."""

    layers: int = 3


@dataclass(frozen=True, slots=True)
class OfKinds(Recipe):
    """A model whose `kinds` say, a letter a layer, what each is."""

    kinds: str = field(kw_only=True)

    @property
    def layers(self) -> int:
        """How many."""
        return len(self.kinds)


@dataclass(frozen=True, slots=True)
class Described(Counted):
    """A model of an architecture that is told by two functions: its own keys and tensors."""

    keys: Callable[[gguf.GGUFWriter, Self], None] = field(kw_only=True)
    own: Callable[[Self], Iterator[TensorSpec]] = field(kw_only=True)
    head_dim: int = 24
    width: int = 32
    ffn_norm: str = "ffn_norm"
