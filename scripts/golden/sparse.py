"""Golden models whose layers attend to chosen tokens: DeepSeek-V3.2, GLM-5 and Hunyuan 4.

DeepSeek-V3's attention and mixture, with an indexer in some layers. Hunyuan's have several residual
streams besides; its quantised one chooses no tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.deepseek import (
    ALL,
    BLOCKS,
    QUERY_RANK,
    DeepSeekLike,
    v3_attention,
    v3_attention_keys,
    yarn,
)
from golden.files import TensorSpec, is_f32
from golden.keys import Indexer
from golden.parts import indexer
from golden.recipe import HEADS

INDEXED = [1, 0, 1, 0, 0, 1]
STREAMS = 4


def _sparse_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    """Twelve positions of up to 64 are attended to, or all, where rounding could turn a choice."""
    v3_attention_keys(writer, model)
    Indexer(12 if is_f32(model) else 64).add(writer)


def _v32_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    _sparse_keys(writer, model)
    yarn(writer, 0.1)


def _glm_dsa_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    _sparse_keys(writer, model)
    writer.add_array("glm-dsa.attention.indexer.types", INDEXED[: model.layers])


def _sparse_attention(model: DeepSeekLike) -> Iterator[TensorSpec]:
    yield from v3_attention(model)
    yield from indexer(model.hidden, QUERY_RANK)


def _hy_v4_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    v3_attention_keys(writer, model, further=False)
    if is_f32(model):
        Indexer(12).add(writer)
        writer.add_array("hy_v4.attention.indexer.types", INDEXED[: model.layers])
    writer.add_swiglu_clamp_exp([1.0] * model.layers)
    writer.add_uint32("hy_v4.hyper_connection.count", STREAMS)
    writer.add_float32("hy_v4.hyper_connection.epsilon", 0.05)
    writer.add_float32("hy_v4.hyper_connection.magnitude", 1.7)


def _hy_v4_attention(model: DeepSeekLike) -> Iterator[TensorSpec]:
    yield from _sparse_attention(model)
    yield "attn_sinks.weight", (HEADS,), 1.0
    yield "attn_gate.weight", (HEADS * model.value, model.hidden), model.hidden**-0.5
    for branch in ("attn", "ffn"):
        yield from _streams(f"hc_{branch}", model.hidden, 2)


def _streams(name: str, hidden: int, kinds: int) -> Iterator[TensorSpec]:
    """What the shares of the streams come from."""
    wide = STREAMS * hidden
    yield f"{name}_fn.weight", (kinds * STREAMS, wide), wide**-0.5
    yield f"{name}_base.weight", (kinds * STREAMS,), 0.5
    yield f"{name}_scale.weight", (kinds,), 1.0


@dataclass(frozen=True, slots=True)
class HyV4Like(DeepSeekLike):
    """A model of several streams, where layers that choose nothing have no indexer."""

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        for name, shape, std in DeepSeekLike.tensors(self):
            layer = name.split(".")[1]
            if ".indexer." not in name or (is_f32(self) and INDEXED[int(layer)]):
                yield name, shape, std
        yield from _streams("output_hc", self.hidden, 1)


SPARSE = {"keys": _v32_keys, "own": _sparse_attention}
GLM_DSA = {"keys": _glm_dsa_keys, "own": _sparse_attention}
HY_V4 = {"keys": _hy_v4_keys, "own": _hy_v4_attention}
SMALL = {"hidden": 32, "width": 16, "used": 4}

SPARSE_MODELS: tuple[DeepSeekLike, ...] = (
    DeepSeekLike("deepseek32", "deepseek32", 671, layers=4, **SMALL, **SPARSE),
    DeepSeekLike("deepseek32-q8_0", "deepseek32", 672, types=("Q8_0",), **ALL, **SPARSE, **BLOCKS),
    DeepSeekLike("glm-dsa", "glm-dsa", 673, layers=6, **SMALL, **GLM_DSA),
    DeepSeekLike("glm-dsa-q8_0", "glm-dsa", 674, types=("Q8_0",), **ALL, **GLM_DSA, **BLOCKS),
    HyV4Like("hy_v4", "hy_v4", 691, layers=4, **SMALL, **HY_V4),
    HyV4Like("hy_v4-q8_0", "hy_v4", 692, types=("Q8_0",), **ALL, **HY_V4, **BLOCKS),
)
