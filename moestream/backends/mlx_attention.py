"""Attention over MLX's own function, which reads the cache as it lies.

Owns the writing of keys and values and which positions a chunk sees.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moestream.backends.mlx_core import as_type, mx
from moestream.backends.types import Array, AttentionRule

_SCORES_BYTES = 16 << 20
"""Of the scores of a call, where MLX has no kernel that does without them: a few queries at a time
over a long context, so that their memory does not grow with it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk of ``tokens`` from ``start`` on, each seeing the last ``window``; 0 is all."""

    start: int
    tokens: int
    window: int

    @property
    def stop(self) -> int:
        """The first position after the chunk."""
        return self.start + self.tokens

    @property
    def first(self) -> int:
        """The first position that any of the tokens sees."""
        return max(0, self.start - self.window + 1) if self.window else 0

    def parts(self, heads: int) -> "list[Span]":
        """Chunks whose scores, all heads' in 32 bits, are few enough for one call."""
        tokens = max(_SCORES_BYTES // (4 * heads * (self.stop - self.first)), 1)
        starts = range(self.start, self.stop, tokens)
        return [Span(s, min(tokens, self.stop - s), self.window) for s in starts]

    @property
    def is_plain(self) -> bool:
        """Whether each token sees all before it, which MLX needs no mask for."""
        return not self.window or self.stop <= self.window

    def mask(self) -> NDArray[np.bool_]:
        """Which positions from ``first`` on each token sees: (T, S)."""
        ages = np.arange(self.start, self.stop)[:, None] - np.arange(self.first, self.stop)
        return (ages >= 0) & (ages < (self.window or self.stop))


@dataclass(slots=True)
class Masks:
    """The last mask of each window: all layers of a chunk share it."""

    to_device: Callable[[NDArray[np.bool_]], Array]
    made: dict[int, tuple[Span, Array]] = field(default_factory=dict)

    def of(self, span: Span) -> Array | str | None:
        """What MLX is to be told."""
        if span.tokens == 1:
            return None
        if span.is_plain:
            return "causal"
        if span.window not in self.made or self.made[span.window][0] != span:
            self.made[span.window] = (span, self.to_device(span.mask()))
        return self.made[span.window][1]


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
    scale: float,
    sinks: Array | None,
) -> Array:
    """Queries (T, H, D) over what the buffers hold: (T, H * Dv), in the type that they have."""
    seen = slice(span.first, span.stop)
    dtype = keys.dtype if keys.dtype == values.dtype else mx.float32
    out = fast.scaled_dot_product_attention(
        as_type(ops, q.swapaxes(0, 1)[None], dtype),
        as_type(ops, keys[None, :, seen], dtype),
        as_type(ops, values[None, :, seen], dtype),
        scale=scale,
        mask=mask,
        sinks=None if sinks is None else as_type(ops, sinks, dtype),
    )
    return as_type(ops, out[0].swapaxes(0, 1).reshape(span.tokens, -1), mx.float32)
