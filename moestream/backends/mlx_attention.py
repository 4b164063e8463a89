"""Attention over MLX's own function, which reads the cache as it lies.

Owns the writing of keys and values, and what MLX has no function for.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends.kv_rows import KVShapes, KVTypes
from moestream.backends.mlx_arrays import MlxArrays
from moestream.backends.mlx_core import as_type, mx
from moestream.backends.mlx_kv import MlxStores
from moestream.backends.mlx_rope import Angles, turn
from moestream.backends.mlx_spans import Masks, Span
from moestream.backends.sparse import choose
from moestream.backends.types import QKV, Array, AttentionRule, IndexQueries, KVPass, RopeStyle

Chosen = NDArray[np.bool_] | None
"""Which positions each row of a pass sees, (T, 1 or K, most S), by key/value head where they
differ; None for all."""


class MlxAttention(MlxArrays):
    """Part of the MLX ``Backend``; see there for shapes and meaning."""

    def __init__(self) -> None:
        super().__init__()
        self._angles = Angles(self._device)
        self._masks = Masks(self._device.send)

    def rope(
        self, x: Array, cos: NDArray[np.float32], sin: NDArray[np.float32], style: RopeStyle
    ) -> Array:
        """See ``mlx_rope``."""
        return turn(self._mx, x, self._angles.of(cos, sin), style)

    def kv_stores(self, shapes: KVShapes, kv_types: KVTypes, capacity: int) -> MlxStores:
        """A buffer a layer and sequence, float16 or float32.

        Raises:
            UnsupportedModelError: ``q8_0``, which MLX's attention does not read.
        """
        return MlxStores(shapes, kv_types, capacity)

    def kv_pass(self, parts: Sequence[tuple[Any, int, int]]) -> KVPass:
        """As they are."""
        return parts

    def attention(
        self, qkv: QKV, kv_pass: KVPass, layer: int, rule: AttentionRule, seen: Chosen = None
    ) -> Array:
        """MLX's own, in the type of keys and values, one sequence after the other."""
        (q, k, v), outs, row = qkv, [], 0
        for store, start, tokens in kv_pass:
            rows = slice(row, row + tokens)
            span = Span(start, tokens, rule.window)
            new = (k[rows], None if v is None else v[rows])
            chosen = None if seen is None else seen[rows]
            outs.append(self._attend(q[rows], new, store.layers[layer], span, rule, chosen))
            row += tokens
        return self.stack_rows(outs)  # (T, H * D)

    def choose(self, index: IndexQueries, k: Array, kv_pass: KVPass, layer: int) -> Chosen:
        """On the CPU, as the reference does."""
        longest = max(start + tokens for _, start, tokens in kv_pass)
        if longest <= index.enough:
            return None
        seen, row = np.zeros((len(k), index.choices, longest), np.bool_), 0
        queries, weights = self._device.fetch(index.queries), self._device.fetch(index.weights)
        for store, start, tokens in kv_pass:
            rows, stop = slice(row, row + tokens), start + tokens
            keys = store.layers[layer][0]
            write_rows(self._mx, keys, k[rows], Span(start, tokens, 0))
            behind = index.kept // len(keys)
            past = keys[:, :stop, -behind:].astype(mx.float32).swapaxes(0, 1)
            past = self._device.fetch(past.reshape(stop, -1))
            asked = replace(index, queries=queries[rows], weights=weights[rows])
            seen[rows, :, :stop] = choose(asked, past, start)
            row += tokens
        return seen

    def _attend(
        self,
        q: Array,
        new: tuple[Array, Array | None],
        buffers: tuple[Array, Array | None],
        span: Span,
        rule: AttentionRule,
        seen: Chosen,
    ) -> Array:
        ops, (keys, values) = self._mx, buffers
        write_rows(ops, keys, new[0], span)
        if new[1] is None or values is None:
            values = keys[..., : rule.value_dim]
        else:
            write_rows(ops, values, new[1], span)
        outs: list[Array] = []
        for part in span.parts(q.shape[1]):
            if outs:  # or the scores of all parts would be in memory at once
                self._device.evaluate(outs[-1])
            rows = slice(part.start - span.start, part.stop - span.start)
            if rule.cap:
                seen_here = self._device.send(part.mask())
                outs.append(attend_within(ops, q[rows], keys, values, part, seen_here, rule))
                continue
            mask = self._masks.of(part)
            if seen is not None:
                group = 1 if seen.shape[1] == 1 else q.shape[1] // seen.shape[1]
                here = seen[rows, :, part.first : part.stop].swapaxes(0, 1)
                mask = self._device.send(np.repeat(here, group, axis=0))  # (1 or H, T, S)
            fast = self._device.fast
            outs.append(attend(ops, fast, q[rows], keys, values, part, mask, rule))
        return self.stack_rows(outs)


def write_rows(ops: Any, buffer: Array, new: Array, span: Span) -> None:
    """Put (T, K, D) into a buffer (K, S, D); in place, where nothing else holds the buffer."""
    rows = as_type(ops, new.swapaxes(0, 1), buffer.dtype)
    buffer[:, span.start : span.stop] = rows


def attend_within(
    ops: Any, q: Array, keys: Array, values: Array, span: Span, seen: Array, rule: AttentionRule
) -> Array:
    """``attend``, with scores that stay within the rule's cap: MLX has no kernel for that.

    ``seen`` (T, S) says which positions each token sees.
    """
    there = slice(span.first, span.stop)
    tokens, heads, dim = q.shape
    q = q.swapaxes(0, 1).reshape(len(keys), heads // len(keys), tokens, dim)
    scores = ops.matmul(q, as_type(ops, keys[:, None, there], mx.float32).swapaxes(2, 3))
    scores = ops.multiply(ops.tanh(ops.multiply(scores, rule.scale / rule.cap)), rule.cap)
    shares = ops.softmax(ops.where(seen, scores, -np.inf), axis=-1)
    out = ops.matmul(shares, as_type(ops, values[:, None, there], mx.float32))
    return out.reshape(heads, tokens, -1).swapaxes(0, 1).reshape(tokens, -1)


def attend(
    ops: Any,
    fast: Any,
    q: Array,
    keys: Array,
    values: Array,
    span: Span,
    mask: Array | str | None,
    rule: AttentionRule,
) -> Array:
    """Queries (T, H, D) over what the buffers hold: (T, H * Dv), in the type that they have."""
    seen = slice(span.first, span.stop)
    dtype = keys.dtype if keys.dtype == values.dtype else mx.float32
    out = fast.scaled_dot_product_attention(
        as_type(ops, q.swapaxes(0, 1)[None], dtype),
        as_type(ops, keys[None, :, seen], dtype),
        as_type(ops, values[None, :, seen], dtype),
        scale=rule.scale,
        mask=mask,
        sinks=None if rule.sinks is None else as_type(ops, rule.sinks, dtype),
    )
    return as_type(ops, out[0].swapaxes(0, 1).reshape(span.tokens, -1), mx.float32)
