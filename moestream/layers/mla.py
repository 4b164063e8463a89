"""Multi-head latent attention: all heads read one compressed row a position.

A position's keys and values are projections of its latent. Projecting the queries instead, and what
was attended to afterwards, comes to the same and leaves only the latent, and the rotated part of
the key that all heads share, to be kept.

Source: arXiv 2405.04434; llama.cpp, src/models/deepseek2.cpp.
"""

from dataclasses import dataclass
from typing import Literal

from moestream.backends import Array, AttentionRule, RopeStyle
from moestream.layers.attention import Temperature
from moestream.layers.batch import Batch
from moestream.layers.indexer import Indexer, IndexShape
from moestream.layers.norm import RMSNorm
from moestream.layers.rope import Rope
from moestream.layers.weights import Weights

LatentGate = Literal["none", "heads", "values"]


@dataclass(frozen=True, slots=True)
class LatentSizes:
    """``plain`` and ``turned`` dimensions of a head's queries, and ``value`` of its values.

    ``latent`` is what is kept of a position besides its turned dimensions.
    """

    latent: int
    plain: int
    turned: int
    value: int


class LatentAttention:
    """Norm, projections, rotation, attention over latents, output projection: (T, E) -> (T, E).

    Without ``rope``, nothing is turned. ``gate``: each head's result is scaled by the sigmoid of a
    projection, or each of its values is; ``sinks`` as in ``Attention``. ``index`` asks for an
    indexer, which chooses what is attended to; a layer without its ``own`` attends to what the last
    one chose. What the index goes by lies behind each position's latent and turned numbers, where
    queries are zero. ``window`` is how many positions a token sees, 0 for all; ``norm_turned``:
    what keys turn is normed before.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        hidden_size: int,
        num_heads: int,
        sizes: LatentSizes,
        query_rank: int,
        eps: float,
        rope: Rope | None,
        rope_style: RopeStyle,
        scale: float,
        temperature: Temperature | None = None,
        gate: LatentGate = "none",
        sinks: bool = False,
        index: IndexShape | None = None,
        own_index: bool = True,
        window: int = 0,
        norm_turned: bool = False,
        indexer: type[Indexer] = Indexer,
    ) -> None:
        self.backend = weights.backend
        self.temperature = temperature
        self.num_heads, self.sizes = num_heads, sizes
        sink_scores = weights.vector("attn_sinks.weight", num_heads) if sinks else None
        self.rule = AttentionRule(scale, window, sink_scores, value_dim=sizes.latent)
        self.rope, self.rope_style = rope, rope_style
        queries = num_heads * (sizes.plain + sizes.turned)
        self.norm = RMSNorm(weights, "attn_norm.weight", hidden_size, eps)
        self.q_a = None
        if query_rank:
            self.q_a = weights.matrix("attn_q_a.weight", query_rank, hidden_size)
            self.q_a_norm = RMSNorm(weights, "attn_q_a_norm.weight", query_rank, eps)
            self.q = weights.matrix("attn_q_b.weight", queries, query_rank)
        else:
            self.q = weights.matrix("attn_q.weight", queries, hidden_size)
        self.kv_a = weights.matrix("attn_kv_a_mqa.weight", sizes.latent + sizes.turned, hidden_size)
        self.kv_a_norm = RMSNorm(weights, "attn_kv_a_norm.weight", sizes.latent, eps)
        if weights.has("attn_k_b.weight"):
            self.k_b = weights.heads("attn_k_b.weight", num_heads, sizes.latent, sizes.plain)
            self.v_b = weights.heads("attn_v_b.weight", num_heads, sizes.value, sizes.latent)
        else:  # older files: one matrix, keys not transposed
            self.k_b, self.v_b = weights.heads_of_pairs(
                "attn_kv_b.weight", num_heads, sizes.plain, sizes.value, sizes.latent
            )
        self.gate = None
        if gate != "none":
            scaled = num_heads * (sizes.value if gate == "values" else 1)
            self.gate = weights.matrix("attn_gate.weight", scaled, hidden_size)
        self.turned_norm = None
        if norm_turned:
            self.turned_norm = RMSNorm(weights, "attn_k_norm.weight", sizes.turned, eps)
        self.index = index
        self.indexer = None
        if index is not None and own_index:
            self.indexer = indexer(
                weights, hidden_size=hidden_size, rank=query_rank, shape=index, rope=rope
            )
        self.output = weights.matrix("attn_output.weight", hidden_size, num_heads * sizes.value)

    def __call__(self, x: Array, batch: Batch, layer: int) -> Array:
        """Attend within each sequence; writes the rows' latents to the caches."""
        ops, sizes = self.backend, self.sizes
        x = self.norm(x)
        angles = None if self.rope is None else batch.angles(self.rope)
        latent, turned = ops.split(ops.linear(x, self.kv_a), sizes.latent)  # (T, L), (T, R)
        if self.turned_norm is not None:
            turned = self.turned_norm(turned)
        turned = self._turn(turned[:, None], angles)  # (T, 1, R)
        keys = ops.join(self.kv_a_norm(latent)[:, None], turned)  # (T, 1, L + R)
        asked = x if self.q_a is None else self.q_a_norm(ops.linear(x, self.q_a))
        q = ops.join(*self._queries(asked, angles))  # (T, H, L + R)
        if self.temperature is not None:
            q = ops.scale_rows(q, self.temperature(batch.positions()))
        if self.indexer is not None:
            keys = ops.join(keys, self.indexer.keys(x, batch))
            q = ops.join(q, ops.zeros((*q.shape[:2], self.indexer.shape.kept)))
            index = self.indexer.queries(x, asked, batch)
            batch.chosen = ops.choose(index, keys, batch.kv, layer)
        seen = None if self.index is None else batch.chosen
        out = ops.attention((q, keys, None), batch.kv, layer, self.rule, seen)
        out = ops.heads_linear(out.reshape(len(x), self.num_heads, -1), self.v_b)  # (T, H, Dv)
        if self.gate is not None:
            logits = ops.linear(x, self.gate).reshape(len(x), self.num_heads, -1)
            out = ops.sigmoid_scale(out, logits)
        return ops.linear(out.reshape(len(x), -1), self.output)

    def _turn(self, x: Array, angles: tuple[Array, Array] | None) -> Array:
        return x if angles is None else self.backend.rope(x, *angles, self.rope_style)

    def _queries(self, x: Array, angles: tuple[Array, Array] | None) -> tuple[Array, Array]:
        """Queries of the latent (T, H, L) and of the turned dimensions (T, H, R)."""
        ops = self.backend
        q = ops.linear(x, self.q).reshape(len(x), self.num_heads, -1)
        plain, turned = ops.split(q, self.sizes.plain)
        return ops.heads_linear(plain, self.k_b), self._turn(turned, angles)
