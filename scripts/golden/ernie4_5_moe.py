"""Golden models of ERNIE 4.5: a dense layer first, shared experts, a bias in the choice alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gguf

from golden.files import EPSILON, VOCAB, TensorSpec, swiglu


@dataclass(frozen=True, slots=True)
class Ernie45MoE:
    """One dense layer, then experts with a shared one of another width."""

    name: str
    seed: int
    types: tuple[str, ...] = ("F32",)
    layers: int = 3
    leading_dense: int = 1
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 24
    intermediate: int = 48
    expert_width: int = 24
    shared_width: int = 40
    experts: int = 8
    arch: str = "ernie4_5-moe"

    @property
    def moe_layers(self) -> list[int]:
        """All after the dense ones."""
        return list(range(self.leading_dense, self.layers))

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that the converter writes."""
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self.intermediate)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_rope_freq_base(1000.0)
        writer.add_layer_norm_rms_eps(EPSILON)
        writer.add_expert_count(self.experts)
        writer.add_expert_used_count(3)
        writer.add_interleave_moe_layer_step(1)
        writer.add_leading_dense_block_count(self.leading_dense)
        writer.add_expert_feed_forward_length(self.expert_width)
        writer.add_expert_shared_count(2)
        writer.add_expert_shared_feed_forward_length(self.shared_width)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        hidden = self.hidden
        yield "token_embd.weight", (VOCAB, hidden), 0.18
        yield "output_norm.weight", (hidden,), 0.3
        for layer in range(self.layers):
            parts = (self._attention(), self._network(layer))
            for name, shape, std in (spec for part in parts for spec in part):
                yield f"blk.{layer}.{name}", shape, std

    def _attention(self) -> Iterator[TensorSpec]:
        hidden, query = self.hidden, self.heads * self.head_dim
        key = self.kv_heads * self.head_dim
        yield "attn_norm.weight", (hidden,), 0.3
        for name, rows in (("q", query), ("k", key), ("v", key)):
            yield f"attn_{name}.weight", (rows, hidden), 0.8 * hidden**-0.5
        yield "attn_output.weight", (hidden, query), query**-0.5
        yield "ffn_norm.weight", (hidden,), 0.3

    def _network(self, layer: int) -> Iterator[TensorSpec]:
        if layer < self.leading_dense:
            yield from swiglu(self.hidden, self.intermediate)
            return
        yield "ffn_gate_inp.weight", (self.experts, self.hidden), self.hidden**-0.5
        yield "exp_probs_b.bias", (self.experts,), 0.1
        yield from swiglu(self.hidden, self.expert_width, "_exps", self.experts)
        yield from swiglu(self.hidden, self.shared_width, "_shexp")


MODELS = (
    Ernie45MoE("ernie4_5-moe", 102),
    Ernie45MoE(
        "ernie4_5-moe-mxfp4", 342, ("MXFP4", "Q5_1", "Q8_0"),
        intermediate=64, expert_width=32, shared_width=64, head_dim=32,
    ),
)  # fmt: skip
