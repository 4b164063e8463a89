"""Golden models of LFM2-MoE: short convolutions, one layer that attends, leading dense layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, Model, TensorSpec
from golden.keys import add_experts, add_sizes
from golden.parts import attention, head_norms, mixture, norms, swiglu
from golden.recipe import HEADS, KV_HEADS, Counted

CONV = 3


@dataclass(frozen=True, slots=True)
class GoldenConvolved(Counted):
    """A dense layer that convolves, then experts: one attends, one convolves."""

    used: int = 2
    lead: int = 1

    @property
    def attends(self) -> list[bool]:
        """Layer by layer."""
        return [layer == 1 for layer in range(self.layers)]

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        kv_heads = [KV_HEADS if attends else 0 for attends in self.attends]
        add_sizes(writer, self, 3 * self.width, kv_heads=kv_heads)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_rope_freq_base(1000.0)
        add_experts(writer, self)
        writer.add_expert_feed_forward_length(self.width)
        writer.add_leading_dense_block_count(self.lead)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_shortconv_l_cache(CONV)

    def outside(self) -> Iterator[TensorSpec]:
        """An embedding that is the output, too; its norm has a name of its own."""
        yield "token_embd.weight", (VOCAB, self.hidden), 0.2
        yield "token_embd_norm.weight", (self.hidden,), 0.3

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """What mixes tokens, then a network or experts."""
        hidden, head = self.hidden, self.hidden // HEADS
        yield from norms(hidden, "attn_norm")
        if self.attends[layer]:
            between = head_norms(head, head)
            yield from attention(hidden, hidden, KV_HEADS * head, between=between)
        else:
            yield from _convolution(hidden)
        yield from norms(hidden, "ffn_norm")
        if layer in self.moe_layers:
            yield from mixture(self, bias=0.06)
        else:
            yield from swiglu(hidden, 3 * self.width)


def _convolution(hidden: int) -> Iterator[TensorSpec]:
    yield "shortconv.conv.weight", (hidden, CONV), 0.7
    yield "shortconv.in_proj.weight", (3 * hidden, hidden), 0.7 * hidden**-0.5
    yield "shortconv.out_proj.weight", (hidden, hidden), hidden**-0.5


LFM2MOE_MODELS: tuple[Model, ...] = (
    GoldenConvolved("lfm2moe", "lfm2moe", 211),
    GoldenConvolved("lfm2moe-q8_0", "lfm2moe", 218, ("Q8_0", "Q5_0"), width=32),
)
