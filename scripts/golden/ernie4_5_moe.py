"""Golden models of ERNIE 4.5: a dense layer first, shared experts, a bias in the choice alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, TensorSpec
from golden.keys import add_experts, add_head_dim, add_sizes
from golden.parts import attention, mixture, norms, swiglu
from golden.recipe import HEADS, KV_HEADS, Counted


@dataclass(frozen=True, slots=True)
class Ernie45MoE(Counted):
    """One dense layer, then experts with a shared one of another width."""

    lead: int = 1
    tied: float = 0.18
    head_dim: int = 24
    width: int = 24
    dense_width: int = 48
    shared: int = 40

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        add_sizes(writer, self, self.dense_width)
        add_head_dim(writer, self.head_dim)
        writer.add_rope_freq_base(1000.0)
        writer.add_layer_norm_rms_eps(EPSILON)
        add_experts(writer, self)
        writer.add_interleave_moe_layer_step(1)
        writer.add_leading_dense_block_count(self.lead)
        writer.add_expert_feed_forward_length(self.width)
        writer.add_expert_shared_count(2)
        writer.add_expert_shared_feed_forward_length(self.shared)

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Attention, then a network or experts."""
        yield from norms(self.hidden, "attn_norm")
        yield from attention(self.hidden, HEADS * self.head_dim, KV_HEADS * self.head_dim)
        yield from norms(self.hidden, "ffn_norm")
        if layer in self.moe_layers:
            yield from mixture(self, bias=0.1, shared=self.shared)
        else:
            yield from swiglu(self.hidden, self.dense_width)


MODELS = (
    Ernie45MoE("ernie4_5-moe", "ernie4_5-moe", 102),
    Ernie45MoE(
        "ernie4_5-moe-mxfp4", "ernie4_5-moe", 342, ("MXFP4", "Q5_1", "Q8_0"),
        dense_width=64, width=32, shared=64, head_dim=32,
    ),
)  # fmt: skip
