"""Golden models of mixtures with plain attention: gpt-oss, Granite, Hunyuan and MiniMax.

Three layers each, grouped queries, heads that do not follow from the hidden size, eight experts of
which two or three run; what an architecture has besides is in its functions of keys and tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, Described, TensorSpec, swiglu

HEADS, KV_HEADS = 4, 2
WINDOW = 9


@dataclass(frozen=True, slots=True)
class Mixture(Described):
    """One model, whose ``own`` tensors are those that the others lack."""

    biases: bool = False
    tied: bool = False

    @property
    def moe_layers(self) -> list[int]:
        """All of them."""
        return list(range(self.layers))

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys."""
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self.width)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_expert_count(self.experts)
        writer.add_expert_used_count(self.used)
        self.keys(writer, self)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        hidden = self.hidden
        yield "token_embd.weight", (VOCAB, hidden), 0.25 if self.tied else 1.0
        yield "output_norm.weight", (hidden,), 0.3
        if not self.tied:
            yield "output.weight", (VOCAB, hidden), 1.5 * hidden**-0.5
        for layer in range(self.layers):
            for part in (self._attention(), self._experts(), self.own(self)):
                for name, shape, std in part:
                    yield f"blk.{layer}.{name}", shape, std

    def _attention(self) -> Iterator[TensorSpec]:
        hidden = self.hidden
        query, key = HEADS * self.head_dim, KV_HEADS * self.head_dim
        yield "attn_norm.weight", (hidden,), 0.3
        for name, rows in (("attn_q", query), ("attn_k", key), ("attn_v", key)):
            yield f"{name}.weight", (rows, hidden), 0.8 * hidden**-0.5
            if self.biases:
                yield f"{name}.bias", (rows,), 0.5
        yield "attn_output.weight", (hidden, query), query**-0.5
        if self.biases:
            yield "attn_output.bias", (hidden,), 0.5

    def _experts(self) -> Iterator[TensorSpec]:
        hidden, width = self.hidden, self.width
        yield f"{self.ffn_norm}.weight", (hidden,), 0.3
        yield "ffn_gate_inp.weight", (self.experts, hidden), hidden**-0.5
        for name, rows, columns, gain in (
            ("gate", width, hidden, 1.0),
            ("up", width, hidden, 1.0),
            ("down", hidden, width, 1.5),
        ):
            yield f"ffn_{name}_exps.weight", (self.experts, rows, columns), gain * columns**-0.5
            if self.biases:
                yield f"ffn_{name}_exps.bias", (self.experts, rows), 0.5
        if self.biases:
            yield "ffn_gate_inp.bias", (self.experts,), 0.5


def _gpt_oss_keys(writer: gguf.GGUFWriter, model: Mixture) -> None:
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_rope_freq_base(1000.0)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(32)
    writer.add_expert_feed_forward_length(model.width)
    writer.add_sliding_window(WINDOW)


def _gpt_oss_extras(model: Mixture) -> Iterator[TensorSpec]:
    yield "attn_sinks.weight", (HEADS,), 1.0


def _granite_keys(writer: gguf.GGUFWriter, model: Mixture) -> None:
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_attention_scale(0.3)
    writer.add_embedding_scale(3.0)
    writer.add_residual_scale(0.7)
    writer.add_logit_scale(1.5)
    writer.add_expert_shared_feed_forward_length(2 * model.width)


def _shared(model: Mixture) -> Iterator[TensorSpec]:
    return swiglu(model.hidden, 2 * model.width, "_shexp")


def _hunyuan_keys(writer: gguf.GGUFWriter, model: Mixture) -> None:
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_rope_freq_base(1000.0)
    writer.add_expert_feed_forward_length(model.width)
    writer.add_expert_shared_feed_forward_length(2 * model.width)


def _hunyuan_extras(model: Mixture) -> Iterator[TensorSpec]:
    yield "attn_q_norm.weight", (model.head_dim,), 0.3
    yield "attn_k_norm.weight", (model.head_dim,), 0.3
    yield from _shared(model)


def _minimax_keys(writer: gguf.GGUFWriter, model: Mixture) -> None:
    writer.add_rope_dimension_count(16)  # of the 24, or 32, of a head
    writer.add_rope_freq_base(1000.0)
    writer.add_expert_feed_forward_length(model.width)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def _minimax_extras(model: Mixture) -> Iterator[TensorSpec]:
    yield "attn_q_norm.weight", (HEADS * model.head_dim,), 0.3
    yield "attn_k_norm.weight", (KV_HEADS * model.head_dim,), 0.3
    yield "exp_probs_b.bias", (model.experts,), 0.2


GPT_OSS = {"biases": True, "ffn_norm": "post_attention_norm"}

MIXTURES: tuple[Mixture, ...] = (
    Mixture("gpt-oss", "gpt-oss", 201, _gpt_oss_keys, _gpt_oss_extras, **GPT_OSS),
    Mixture("granitemoe", "granitemoe", 202, _granite_keys, _shared, head_dim=16, tied=True),
    Mixture("hunyuan-moe", "hunyuan-moe", 203, _hunyuan_keys, _hunyuan_extras),
    Mixture("minimax-m2", "minimax-m2", 300, _minimax_keys, _minimax_extras),
    Mixture(
        "gpt-oss-mxfp4",
        "gpt-oss",
        355,
        _gpt_oss_keys,
        _gpt_oss_extras,
        ("Q8_0", "MXFP4"),
        head_dim=32,
        **GPT_OSS,
    ),
    Mixture("granitemoe-q4_0", "granitemoe", 301, _granite_keys, _shared, ("Q4_0",), head_dim=16),
    Mixture(
        "hunyuan-moe-q8_0",
        "hunyuan-moe",
        496,
        _hunyuan_keys,
        _hunyuan_extras,
        ("Q8_0",),
        head_dim=32,
        used=2,
    ),
    Mixture(
        "minimax-m2-q5_0",
        "minimax-m2",
        570,
        _minimax_keys,
        _minimax_extras,
        ("Q5_0",),
        head_dim=32,
        used=2,
    ),
)
