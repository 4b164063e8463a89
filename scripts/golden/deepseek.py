"""Golden models of DeepSeek's kind of mixture: DeepSeek-V2 and V3, GLM-4.5 and Ling 2.

Three layers each (some quantised ones two), the first one dense, and eight routed experts beside
shared ones. What an architecture has besides is in its own function of keys and of tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, Described, TensorSpec, swiglu

HEADS, KV_HEADS = 4, 2
SHARED = 2
LATENT, QUERY_RANK, TURNED = 32, 32, 8


@dataclass(frozen=True, slots=True)
class DeepSeekLike(Described):
    """One model, whose ``own`` tensors are those of its attention.

    ``plain`` and ``value`` are dimensions of a head's keys and values.
    """

    plain: int = 12
    value: int = 20
    sigmoid: bool = True
    norms: bool = True

    @property
    def moe_layers(self) -> list[int]:
        """All but the first."""
        return list(range(1, self.layers))

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys."""
        writer.add_embedding_length(self.hidden)
        writer.add_feed_forward_length(3 * self.width)
        writer.add_head_count(HEADS)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_leading_dense_block_count(1)
        writer.add_expert_count(self.experts)
        writer.add_expert_used_count(self.used)
        writer.add_expert_shared_count(SHARED)
        writer.add_expert_feed_forward_length(self.width)
        if self.sigmoid:
            writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
            writer.add_expert_weights_norm(True)
            writer.add_expert_weights_scale(1.8)
        self.keys(writer, self)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        hidden = self.hidden
        yield "token_embd.weight", (VOCAB, hidden), 1.0
        yield "output_norm.weight", (hidden,), 0.3
        yield "output.weight", (VOCAB, hidden), 1.5 * hidden**-0.5
        for layer in range(self.layers):
            ffn = self._experts() if layer else swiglu(hidden, 3 * self.width)
            yield f"blk.{layer}.attn_norm.weight", (hidden,), 0.3
            yield f"blk.{layer}.{self.ffn_norm}.weight", (hidden,), 0.3
            for part in (self.own(self), ffn):
                for name, shape, std in part:
                    yield f"blk.{layer}.{name}", shape, std

    def _experts(self) -> Iterator[TensorSpec]:
        hidden = self.hidden
        yield "ffn_gate_inp.weight", (self.experts, hidden), hidden**-0.5
        if self.sigmoid:
            yield "exp_probs_b.bias", (self.experts,), 0.2
        yield from swiglu(hidden, self.width, "_exps", self.experts)
        yield from swiglu(hidden, SHARED * self.width, "_shexp")


def _further_layer(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    """Count a layer that predicts further tokens, which the file lacks."""
    writer.add_block_count(model.layers + 1)
    writer.add_nextn_predict_layers(1)


def yarn(writer: gguf.GGUFWriter, multiplier: float) -> None:
    """Add the keys of lengthened contexts."""
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(32)
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
    yield "attn_q_a.weight", (QUERY_RANK, model.hidden), model.hidden**-0.5
    yield "attn_q_a_norm.weight", (QUERY_RANK,), 0.3
    yield "attn_q_b.weight", (queries, QUERY_RANK), 0.5 * QUERY_RANK**-0.5
    yield from _latent_attention(model)
    yield "attn_k_b.weight", (HEADS, LATENT, model.plain), 0.5 * LATENT**-0.5
    yield "attn_v_b.weight", (HEADS, model.value, LATENT), 0.5 * LATENT**-0.5


def _latent_attention(model: DeepSeekLike) -> Iterator[TensorSpec]:
    hidden, attended = model.hidden, HEADS * model.value
    yield "attn_kv_a_mqa.weight", (LATENT + TURNED, hidden), hidden**-0.5
    yield "attn_kv_a_norm.weight", (LATENT,), 0.3
    yield "attn_output.weight", (hidden, attended), attended**-0.5


def _grouped_query_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    writer.add_rope_dimension_count(TURNED)  # of the head's 16 to 32
    writer.add_rope_freq_base(1000.0)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(model.head_dim)
    writer.add_value_length(model.head_dim)


def _glm_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    _grouped_query_keys(writer, model)
    _further_layer(writer, model)


def _glm_attention(model: DeepSeekLike) -> Iterator[TensorSpec]:
    hidden, query, key = model.hidden, HEADS * model.head_dim, KV_HEADS * model.head_dim
    for name, rows in (("attn_q", query), ("attn_k", key), ("attn_v", key)):
        yield f"{name}.weight", (rows, hidden), 0.8 * hidden**-0.5
        yield f"{name}.bias", (rows,), 0.5
    if model.norms:
        yield from _head_norms(model)
    yield "attn_output.weight", (hidden, query), query**-0.5


def _ling_keys(writer: gguf.GGUFWriter, model: DeepSeekLike) -> None:
    _grouped_query_keys(writer, model)
    writer.add_block_count(model.layers)
    writer.add_expert_shared_feed_forward_length(model.width)
    _groups(writer)


def _ling_attention(model: DeepSeekLike) -> Iterator[TensorSpec]:
    hidden, query, key = model.hidden, HEADS * model.head_dim, KV_HEADS * model.head_dim
    yield "attn_qkv.weight", (query + 2 * key, hidden), 0.8 * hidden**-0.5
    yield from _head_norms(model)
    yield "attn_output.weight", (hidden, query), query**-0.5


def _head_norms(model: DeepSeekLike) -> Iterator[TensorSpec]:
    yield "attn_q_norm.weight", (model.head_dim,), 0.3
    yield "attn_k_norm.weight", (model.head_dim,), 0.3


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
