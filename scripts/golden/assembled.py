"""Golden models of mixtures that are put together of the same parts, told by a few words each.

Owns attention with what may be about it, dense networks and experts. Knows no architecture;
``later.py`` and its neighbours name them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self

import gguf

from golden.files import EPSILON, TensorSpec
from golden.keys import add_experts, add_sizes
from golden.parts import head_norms, norms, projections, swiglu
from golden.recipe import HEADS, KV_HEADS, Counted

WINDOW = 9


@dataclass(frozen=True, slots=True)
class Assembled(Counted):
    """One model.

    ``windowed`` says layer by layer which see a window; ``lead`` layers are dense; ``moe_every``-th
    layers alone have experts. ``shared`` is the width of the shared expert, 0 for none. ``gates``
    of attention: none, one a head, or one a number. ``own`` adds tensors to each layer;
    ``replaces`` stands for every other layer, from the first on.
    """

    keys: Callable[[gguf.GGUFWriter, Self], None] = field(kw_only=True)
    windowed: tuple[bool, ...] = ()
    head_dim: int = 16
    value_dim: int = 0
    heads: tuple[int, ...] = ()
    kv_heads: int = KV_HEADS
    turned: int = 0
    dense_width: int = 48
    shared: int = 0
    eps_key: Literal["rms", "layer"] = "rms"
    qk_norm: bool = False
    gates: Literal["none", "head", "number"] = "none"
    selection_bias: str = ""
    joined: bool = False
    sinks: bool = False
    ffn_norm: str = "ffn_norm"
    more_norms: tuple[str, ...] = ()
    query_norm_mean: float = 1.5
    own: Callable[[Self, int], Iterator[TensorSpec]] | None = None
    replaces: Callable[[Self, int], Iterator[TensorSpec]] | None = None

    def num_heads(self, layer: int) -> int:
        """Query heads of a layer."""
        return self.heads[layer] if self.heads else HEADS

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Add the keys that all have, then its own."""
        heads = list(self.heads) if self.heads else HEADS
        add_sizes(writer, self, self.dense_width, heads, self.kv_heads)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.value_dim or self.head_dim)
        if self.eps_key == "rms":
            writer.add_layer_norm_rms_eps(EPSILON)
        else:
            writer.add_layer_norm_eps(EPSILON)
        writer.add_rope_dimension_count(self.turned or self.head_dim)
        writer.add_rope_freq_base(1000.0)
        add_experts(writer, self)
        if self.windowed:
            writer.add_sliding_window(WINDOW)
            writer.add_sliding_window_pattern(list(self.windowed))
        self.keys(writer, self)

    def parts(self, layer: int) -> Iterator[TensorSpec]:
        """Norms, attention, then a network or experts, and what is its own."""
        if self.replaces is not None and layer % 2 == 0:
            yield from self.replaces(self, layer)
            return
        yield from norms(self.hidden, *filter(None, ("attn_norm", self.ffn_norm)))
        yield from norms(self.hidden, *self.more_norms)
        yield from self.attention(layer)
        if layer in self.moe_layers:
            yield from self.mixture()
        else:
            yield from swiglu(self.hidden, self.dense_width)
        if self.own is not None:
            yield from self.own(self, layer)

    def attention(self, layer: int) -> Iterator[TensorSpec]:
        """Projections and what goes with them."""
        heads, value_dim = self.num_heads(layer), self.value_dim or self.head_dim
        query, key = heads * self.head_dim, self.kv_heads * self.head_dim
        value, attended = self.kv_heads * value_dim, heads * value_dim
        if self.joined:
            yield "attn_qkv.weight", (query + key + value, self.hidden), 0.8 * self.hidden**-0.5
        else:
            yield from projections(self.hidden, query, key, value=value)
        if self.qk_norm:
            yield from head_norms(self.head_dim, self.head_dim)
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
