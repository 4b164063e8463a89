"""Golden models of DeepSeek's kind of mixture: DeepSeek-V2 and V3, GLM-4.5 and Ling 2.

Three layers each (some quantised ones two), the first one dense, and eight routed experts beside
shared ones. What an architecture has besides is in its own function of keys and of tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, TensorSpec
from golden.keys import add_head_dim, add_shared_experts, add_sigmoid, add_yarn
from golden.parts import (
    attention,
    head_norms,
    latent_heads,
    latent_row,
    mixture,
    narrow_queries,
    norms,
    swiglu,
)
from golden.recipe import HEADS, KV_HEADS, Described

SHARED = 2
LATENT, QUERY_RANK, TURNED = 32, 32, 8


@dataclass(frozen=True, slots=True)
class DeepSeekLike(Described):
    """One model, whose ``own`` tensors are those of its attention.

    ``plain`` and ``value`` are dimensions of a head's keys and values.
    """

    lead: int = 1
    plain: int = 12
    value: int = 20
    sigmoid: bool = True
    norms: bool = True

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys."""
        writer.add_embedding_length(self.hidden)
        writer.add_feed_forward_length(3 * self.width)
        writer.add_head_count(HEADS)
        writer.add_layer_norm_rms_eps(EPSILON)
        add_shared_experts(writer, self, SHARED)
        if self.sigmoid:
            add_sigmoid(writer, 1.8)
        self.keys(writer, self)

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Both norms, attention, then a network or experts."""
        yield from norms(self.hidden, "attn_norm", self.ffn_norm)
        yield from self.own(self)
        if layer:
            bias = 0.2 if self.sigmoid else 0.0
            yield from mixture(self, bias=bias, shared=SHARED * self.width)
        else:
            yield from swiglu(self.hidden, 3 * self.width)


def _further_layer(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    """Count a layer that predicts further tokens, which the file lacks."""
    writer.add_block_count(model.layers + 1)
    writer.add_nextn_predict_layers(1)


def yarn(writer: gguf.GGUFWriter, multiplier: float) -> None:
    """Add the keys of lengthened contexts."""
    add_yarn(writer)
    writer.add_rope_scaling_yarn_log_mul(multiplier)


def _groups(writer: gguf.GGUFWriter) -> None:
    writer.add_expert_group_count(4)
    writer.add_expert_group_used_count(2)


def _latent_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    writer.add_rope_dimension_count(TURNED)
    writer.add_rope_freq_base(1000.0)
    writer.add_kv_lora_rank(LATENT)


def _v2_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    """As older files: no key says how the router gates, keys and values of all heads.

    A rank of 0 stands for V2-Lite's 27 layers, by which llama.cpp knows it.
    """
    _latent_keys(writer, model)
    writer.add_block_count(model.layers)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(model.plain + TURNED)
    writer.add_value_length(model.value)
    writer.add_q_lora_rank(0)
    writer.add_expert_weights_scale(1.3)
    yarn(writer, 0.0707)


def _v3_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    v3_attention_keys(writer, model)
    _groups(writer)
    yarn(writer, 0.1)


def v3_attention_keys(
    writer: gguf.GGUFWriter, model: DeepSeekLike, *, further: bool = True
) -> None:
    """As newer files: lengths of heads, and of what is kept, have keys of their own."""
    _latent_keys(writer, model)
    if further:
        _further_layer(writer, model)
    else:
        writer.add_block_count(model.layers)
    writer.add_head_count_kv(1)
    writer.add_key_length(LATENT + TURNED)
    writer.add_value_length(LATENT)
    writer.add_key_length_mla(model.plain + TURNED)
    writer.add_value_length_mla(model.value)
    writer.add_q_lora_rank(QUERY_RANK)


def _v2_attention(model: DeepSeekLike) -> Iterator[TensorSpec]:
    queries, pairs = HEADS * (model.plain + TURNED), HEADS * (model.plain + model.value)
    yield "attn_q.weight", (queries, model.hidden), 0.8 * model.hidden**-0.5
    yield from _latent_attention(model)
    yield "attn_kv_b.weight", (pairs, LATENT), 0.5 * LATENT**-0.5


def v3_attention(model: DeepSeekLike) -> Iterator[TensorSpec]:
    """Projections apart, queries from a narrow row."""
    queries = HEADS * (model.plain + TURNED)
    yield from narrow_queries(model.hidden, QUERY_RANK, queries)
    yield from _latent_attention(model)
    yield from latent_heads(HEADS, LATENT, model.plain, model.value)


def _latent_attention(model: DeepSeekLike) -> Iterator[TensorSpec]:
    hidden, attended = model.hidden, HEADS * model.value
    yield from latent_row(hidden, LATENT, TURNED)
    yield "attn_output.weight", (hidden, attended), attended**-0.5


def _grouped_query_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    writer.add_rope_dimension_count(TURNED)  # of the head's 16 to 32
    writer.add_rope_freq_base(1000.0)
    writer.add_head_count_kv(KV_HEADS)
    add_head_dim(writer, model.head_dim)


def _glm_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    _grouped_query_keys(writer, model)
    _further_layer(writer, model)


def _glm_attention(model: DeepSeekLike) -> Iterator[TensorSpec]:
    query, key = HEADS * model.head_dim, KV_HEADS * model.head_dim
    between = head_norms(model.head_dim, model.head_dim) if model.norms else ()
    return attention(model.hidden, query, key, biases=True, between=between)


def _ling_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    _grouped_query_keys(writer, model)
    writer.add_block_count(model.layers)
    writer.add_expert_shared_feed_forward_length(model.width)
    _groups(writer)


def _ling_attention(model: DeepSeekLike) -> Iterator[TensorSpec]:
    hidden, query, key = model.hidden, HEADS * model.head_dim, KV_HEADS * model.head_dim
    yield "attn_qkv.weight", (query + 2 * key, hidden), 0.8 * hidden**-0.5
    yield from head_norms(model.head_dim, model.head_dim)
    yield "attn_output.weight", (hidden, query), query**-0.5


def _mistral_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    """Queries grow from the sixteenth position on."""
    v3_attention_keys(writer, model)
    yarn(writer, 0.1)
    writer.add_attn_temperature_scale(0.3)
    writer.add_attn_temperature_length(16)


V2 = {"keys": _v2_keys, "own": _v2_attention, "sigmoid": False}
V3 = {"keys": _v3_keys, "own": v3_attention}
MISTRAL = {"keys": _mistral_keys, "own": v3_attention}
GLM = {"keys": _glm_keys, "own": _glm_attention, "ffn_norm": "post_attention_norm"}
LING = {"keys": _ling_keys, "own": _ling_attention, "head_dim": 16}
ALL = {"used": 8}  # no choice of experts that rounding could turn
SURE = {"layers": 2, "used": 2}  # few choices, so few that rounding turns
BLOCKS = {"plain": 32, "value": 24}  # rows of whole blocks

DEEPSEEK_LIKE: tuple[DeepSeekLike, ...] = (
    DeepSeekLike("deepseek2-v2", "deepseek2", 401, **V2),
    DeepSeekLike("deepseek2-v3", "deepseek2", 402, **V3),
    DeepSeekLike("deepseek2-v2-q5_0", "deepseek2", 511, types=("Q5_0",), used=2, **V2, **BLOCKS),
    DeepSeekLike("deepseek2-v3-q8_0", "deepseek2", 505, types=("Q8_0",), **SURE, **V3, **BLOCKS),
    DeepSeekLike("glm4moe", "glm4moe", 405, **GLM),
    DeepSeekLike("glm4moe-q8_0", "glm4moe", 514, types=("Q8_0",), norms=False, **SURE, **GLM),
    DeepSeekLike("mistral4", "mistral4", 408, layers=4, **MISTRAL),
    DeepSeekLike("mistral4-q8_0", "mistral4", 409, types=("Q8_0",), **ALL, **MISTRAL, **BLOCKS),
    DeepSeekLike("bailingmoe2", "bailingmoe2", 407, **LING),
    DeepSeekLike("bailingmoe2-q8_0", "bailingmoe2", 520, types=("Q8_0",), **SURE, **LING),
)
