"""Golden models of mixtures that are put together of the same parts, told by a few words each.

Owns the parts: attention with what may be about it, dense networks, experts, and which layers have
which. Knows no architecture; ``later.py`` and its neighbours name them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Self

import gguf

from golden.files import EPSILON, VOCAB, TensorSpec, swiglu

HEADS, KV_HEADS, EXPERTS, WINDOW = 4, 2, 8, 9


@dataclass(frozen=True, slots=True)
class Assembled:
    """One model.

    ``windowed`` says layer by layer which see a window; ``lead`` layers are dense; ``moe_every``-th
    layers alone have experts. ``shared`` is the width of the shared expert, 0 for none. ``gates``
    of attention: none, one a head, or one a number. ``own`` adds tensors to each layer;
    ``replaces`` stands for every other layer, from the first on.
    """

    name: str
    arch: str
    seed: int
    keys: Callable[[gguf.GGUFWriter, Self], None]
    types: tuple[str, ...] = ("F32",)
    layers: int = 3
    windowed: tuple[bool, ...] = ()
    lead: int = 0
    moe_every: int = 1
    hidden: int = 64
    head_dim: int = 16
    value_dim: int = 0
    heads: tuple[int, ...] = ()
    kv_heads: int = KV_HEADS
    turned: int = 0
    width: int = 16
    dense_width: int = 48
    shared: int = 0
    used: int = 3
    experts: int = EXPERTS
    eps_key: Literal["rms", "layer"] = "rms"
    qk_norm: bool = False
    gates: Literal["none", "head", "number"] = "none"
    selection_bias: str = ""
    joined: bool = False
    sinks: bool = False
    tied: bool = False
    rope_factors: int = 0
    ffn_norm: str = "ffn_norm"
    more_norms: tuple[str, ...] = ()
    query_norm_mean: float = 1.5
    own: Callable[[Self, int], Iterator[TensorSpec]] | None = None
    replaces: Callable[[Self, int], Iterator[TensorSpec]] | None = None

    @property
    def moe_layers(self) -> list[int]:
        """Those that have experts."""
        return [i for i in range(self.lead, self.layers) if (i + 1) % self.moe_every == 0]

    def num_heads(self, layer: int) -> int:
        """Query heads of a layer."""
        return self.heads[layer] if self.heads else HEADS

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that all have, then its own."""
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self.dense_width)
        writer.add_head_count(list(self.heads) if self.heads else HEADS)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.value_dim or self.head_dim)
        if self.eps_key == "rms":
            writer.add_layer_norm_rms_eps(EPSILON)
        else:
            writer.add_layer_norm_eps(EPSILON)
        writer.add_rope_dimension_count(self.turned or self.head_dim)
        writer.add_rope_freq_base(1000.0)
        writer.add_expert_count(self.experts)
        writer.add_expert_used_count(self.used)
        if self.windowed:
            writer.add_sliding_window(WINDOW)
            writer.add_sliding_window_pattern(list(self.windowed))
        self.keys(writer, self)

    def tensors(self) -> Iterator[TensorSpec]:
        """All tensors, in the order of the file."""
        hidden = self.hidden
        yield "token_embd.weight", (VOCAB, hidden), 0.25 if self.tied else 1.0
        yield "output_norm.weight", (hidden,), 0.3
        if not self.tied:
            yield "output.weight", (VOCAB, hidden), 1.5 * hidden**-0.5
        if self.rope_factors:
            yield "rope_freqs.weight", (self.rope_factors,), 0.3
        for layer in range(self.layers):
            for part in self._parts(layer):
                for name, shape, std in part:
                    yield f"blk.{layer}.{name}", shape, std

    def _parts(self, layer: int) -> Iterator[Iterator[TensorSpec]]:
        if self.replaces is not None and layer % 2 == 0:
            yield self.replaces(self, layer)
            return
        yield self._norms()
        yield self.attention(layer)
        if layer in self.moe_layers:
            yield self.mixture()
        else:
            yield swiglu(self.hidden, self.dense_width)
        if self.own is not None:
            yield self.own(self, layer)

    def _norms(self) -> Iterator[TensorSpec]:
        for name in ("attn_norm", self.ffn_norm, *self.more_norms):
            if name:
                yield f"{name}.weight", (self.hidden,), 0.3

    def attention(self, layer: int) -> Iterator[TensorSpec]:
        """Projections and what goes with them."""
        heads, value_dim = self.num_heads(layer), self.value_dim or self.head_dim
        query, key = heads * self.head_dim, self.kv_heads * self.head_dim
        value, attended = self.kv_heads * value_dim, heads * value_dim
        std = 0.8 * self.hidden**-0.5
        if self.joined:
            yield "attn_qkv.weight", (query + key + value, self.hidden), std
        else:
            for name, rows in (("attn_q", query), ("attn_k", key), ("attn_v", value)):
                yield f"{name}.weight", (rows, self.hidden), std
        if self.qk_norm:
            yield "attn_q_norm.weight", (self.head_dim,), 0.3
            yield "attn_k_norm.weight", (self.head_dim,), 0.3
        if self.gates != "none":
            rows = heads if self.gates == "head" else attended
            yield "attn_gate.weight", (rows, self.hidden), self.hidden**-0.5
        if self.sinks:
            yield "attn_sinks.weight", (heads,), 1.0
        yield "attn_output.weight", (self.hidden, attended), attended**-0.5

    def mixture(self) -> Iterator[TensorSpec]:
        """Router, experts and shared expert."""
        yield "ffn_gate_inp.weight", (self.experts, self.hidden), self.hidden**-0.5
        if self.selection_bias:
            yield self.selection_bias, (self.experts,), 0.1
        yield from swiglu(self.hidden, self.width, "_exps", self.experts)
        if self.shared:
            yield from swiglu(self.hidden, self.shared, "_shexp")
