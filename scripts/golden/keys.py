"""Keys that several golden models have, in the order that their files have them.

Knows no architecture: GGUF's writer puts its name before each key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import gguf

from golden.files import TOKEN_COUNT
from golden.parts import INDEX, INDEX_HEADS
from golden.recipe import HEADS, KV_HEADS, Recipe


def add_sizes(
    writer: gguf.GGUFWriter,
    model: Recipe,
    feed_forward: int,
    heads: int | Sequence[int] = HEADS,
    kv_heads: int | Sequence[int] = KV_HEADS,
) -> None:
    """Add what most files begin with; heads are told at once or layer by layer."""
    writer.add_embedding_length(model.hidden)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)


def add_head_dim(writer: gguf.GGUFWriter, head_dim: int) -> None:
    """Add the length of keys and values that are alike."""
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)


def add_experts(writer: gguf.GGUFWriter, model: Recipe) -> None:
    """Add how many experts there are and run."""
    writer.add_expert_count(model.experts)
    writer.add_expert_used_count(model.used)


def add_shared_experts(writer: gguf.GGUFWriter, model: Recipe, shared: int) -> None:
    """Add the keys of a mixture of DeepSeek's kind, `shared` experts beside."""
    writer.add_leading_dense_block_count(model.lead)
    add_experts(writer, model)
    writer.add_expert_shared_count(shared)
    writer.add_expert_feed_forward_length(model.width)


def add_sigmoid(writer: gguf.GGUFWriter, scale: float) -> None:
    """Add that a sigmoid gates, and how weights are scaled then."""
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_expert_weights_norm(True)
    writer.add_expert_weights_scale(scale)


class Indexer(NamedTuple):
    """What chooses so many tokens, by keys of a length."""

    chosen: int
    length: int = INDEX

    def add(self, writer: gguf.GGUFWriter) -> None:
        """Add its keys."""
        writer.add_indexer_head_count(INDEX_HEADS)
        writer.add_indexer_key_length(self.length)
        writer.add_indexer_top_k(self.chosen)


def add_yarn(writer: gguf.GGUFWriter, factor: float = 4.0) -> None:
    """Add the keys of a context lengthened from half of the tokens that models are run on."""
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(factor)
    writer.add_rope_scaling_orig_ctx_len(TOKEN_COUNT // 2)


def add_rope_sections(writer: gguf.GGUFWriter, pairs: int) -> None:
    """Add how many pairs each of three positions turns."""
    writer.add_rope_dimension_sections([*(pairs // 3 + (i < pairs % 3) for i in range(3)), 0])


def add_granite_scales(writer: gguf.GGUFWriter) -> None:
    """Add the factors of Granite's."""
    writer.add_attention_scale(0.3)
    writer.add_embedding_scale(3.0)
    writer.add_residual_scale(0.7)
    writer.add_logit_scale(1.5)
