"""Golden models of GroveMoE, whose groups' experts count nothing here.

llama.cpp gives them what the other experts put out, where the model gives them what a layer does;
with a scale of zero it is an oracle of all but them. A test has the formula of the rest. Nor can it
run more experts than there are groups, so the quantised one, which runs all, has groups of one.
"""

from __future__ import annotations

from collections.abc import Iterator

import gguf

from golden.assembled import Assembled
from golden.files import TensorSpec, is_f32
from golden.parts import swiglu
from golden.recipe import EXPERTS

SMALL = 32


def group_of(model: Assembled) -> int:
    """Experts of a group."""
    return 2 if is_f32(model) else 1


def _keys(writer: gguf.GGUFWriter, model: Assembled) -> None:
    writer.add_expert_feed_forward_length(model.width)
    writer.add_expert_chunk_feed_forward_length(SMALL)
    writer.add_experts_per_group(group_of(model))
    writer.add_expert_group_scale(0.0)


def _small(model: Assembled, layer: int) -> Iterator[TensorSpec]:
    yield from swiglu(model.hidden, SMALL, "_chexps", model.experts // group_of(model))


GROVE = {"arch": "grovemoe", "keys": _keys, "own": _small, "qk_norm": True}

GROVEMOE_MODELS: tuple[Assembled, ...] = (
    Assembled("grovemoe", seed=851, **GROVE),
    Assembled(
        "grovemoe-q8_0",
        seed=852,
        types=("Q8_0",),
        head_dim=32,
        width=32,
        used=EXPERTS,
        **GROVE,
    ),
)
