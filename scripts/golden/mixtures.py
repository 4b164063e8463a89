"""Golden models of mixtures with plain attention: gpt-oss, Granite, Hunyuan and MiniMax.

Three layers each, grouped queries, heads that do not follow from the hidden size, eight experts of
which two or three run; what an architecture has besides is in its functions of keys and tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, TensorSpec
from golden.keys import add_experts, add_granite_scales, add_head_dim, add_sizes, add_yarn
from golden.parts import attention, head_norms, norms, swiglu
from golden.recipe import HEADS, KV_HEADS, TIED, Described

WINDOW = 9


@dataclass(frozen=True, slots=True)
class Mixture(Described):
    """One model, whose ``own`` tensors are those that the others lack."""

    biases: bool = False

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys."""
        add_sizes(writer, self, self.width)
        add_head_dim(writer, self.head_dim)
        writer.add_layer_norm_rms_eps(EPSILON)
        add_experts(writer, self)
        self.keys(writer, self)

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Attention and experts, then what the others lack."""
        query, key = HEADS * self.head_dim, KV_HEADS * self.head_dim
        yield from norms(self.hidden, "attn_norm")
        yield from attention(self.hidden, query, key, biases=self.biases)
        if self.biases:
            yield "attn_output.bias", (self.hidden,), 0.5
        yield from self._experts()
        yield from self.own(self)

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
    add_yarn(writer)
    writer.add_expert_feed_forward_length(model.width)
    writer.add_sliding_window(WINDOW)


def _gpt_oss_extras(model: Mixture) -> Iterator[TensorSpec]:
    yield "attn_sinks.weight", (HEADS,), 1.0


def _granite_keys(writer: gguf.GGUFWriter, model: Mixture) -> None:
    writer.add_rope_dimension_count(model.head_dim)
    add_granite_scales(writer)
    writer.add_expert_shared_feed_forward_length(2 * model.width)


def _shared(model: Mixture) -> Iterator[TensorSpec]:
    return swiglu(model.hidden, 2 * model.width, "_shexp")


def _hunyuan_keys(writer: gguf.GGUFWriter, model: Mixture) -> None:
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_rope_freq_base(1000.0)
    writer.add_expert_feed_forward_length(model.width)
    writer.add_expert_shared_feed_forward_length(2 * model.width)


def _hunyuan_extras(model: Mixture) -> Iterator[TensorSpec]:
    yield from head_norms(model.head_dim, model.head_dim)
    yield from _shared(model)


def _minimax_keys(writer: gguf.GGUFWriter, model: Mixture) -> None:
    writer.add_rope_dimension_count(16)  # of the 24, or 32, of a head
    writer.add_rope_freq_base(1000.0)
    writer.add_expert_feed_forward_length(model.width)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def _minimax_extras(model: Mixture) -> Iterator[TensorSpec]:
    yield from head_norms(HEADS * model.head_dim, KV_HEADS * model.head_dim)
    yield "exp_probs_b.bias", (model.experts,), 0.2


GPT_OSS = {"arch": "gpt-oss", "keys": _gpt_oss_keys, "own": _gpt_oss_extras, "biases": True}
GPT_OSS |= {"ffn_norm": "post_attention_norm"}
GRANITE = {"arch": "granitemoe", "keys": _granite_keys, "own": _shared, "head_dim": 16}
HUNYUAN = {"arch": "hunyuan-moe", "keys": _hunyuan_keys, "own": _hunyuan_extras}
MINIMAX = {"arch": "minimax-m2", "keys": _minimax_keys, "own": _minimax_extras}
SURE = {"head_dim": 32, "used": 2}  # rows of whole blocks, few choices that rounding turns

MIXTURES: tuple[Mixture, ...] = (
    Mixture("gpt-oss", seed=201, **GPT_OSS),
    Mixture("granitemoe", seed=202, tied=TIED, **GRANITE),
    Mixture("hunyuan-moe", seed=203, **HUNYUAN),
    Mixture("minimax-m2", seed=300, **MINIMAX),
    Mixture("gpt-oss-mxfp4", seed=355, types=("Q8_0", "MXFP4"), head_dim=32, **GPT_OSS),
    Mixture("granitemoe-q4_0", seed=301, types=("Q4_0",), **GRANITE),
    Mixture("hunyuan-moe-q8_0", seed=496, types=("Q8_0",), **SURE, **HUNYUAN),
    Mixture("minimax-m2-q5_0", seed=570, types=("Q5_0",), **SURE, **MINIMAX),
)
