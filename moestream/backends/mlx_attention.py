"""Attention over MLX's own function, which reads the cache as it lies.

Owns the writing of keys and values and which positions a chunk sees.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moestream.backends.mlx_core import as_type, mx
from moestream.backends.mlx_device import Device
from moestream.backends.types import Array, AttentionRule, KVPass

KeysValues = tuple[Array, Array | None]
"""Of a layer; no values where they are a part of the keys."""

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
        return (ages >= 0) & (ages < self.window)


class Attention:
    """That of one backend, one sequence after the other."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._masks: dict[int, tuple[Span, Array]] = {}
        """The last mask of each window: all layers of a chunk share it."""

    def run(
        self, q: Array, new: KeysValues, kv_pass: KVPass, layer: int, rule: AttentionRule
    ) -> Array:
        """Write what is new into the stores, then attend: see ``Backend.attention``."""
        outs, row, (k, v) = [], 0, new
        for store, start, tokens in kv_pass:
            rows = slice(row, row + tokens)
            span = Span(start, tokens, rule.window)
            keys, values = store.layers[layer]
            self._write(keys, k[rows], span)
            if v is None or values is None:
                values = keys[..., : rule.value_dim]
            else:
                self._write(values, v[rows], span)
            outs += self._attend(q[rows], (keys, values), span, rule)
            row += tokens
        return outs[0] if len(outs) == 1 else self._device.ops.concatenate(outs)  # (T, H * D)

    def _write(self, buffer: Array, new: Array, span: Span) -> None:
        """Put (T, K, D) into a buffer (K, S, D); in place, where nothing else holds the buffer."""
        rows = as_type(self._device.ops, new.swapaxes(0, 1), buffer.dtype)
        buffer[:, span.start : span.stop] = rows

    def _attend(
        self, q: Array, held: tuple[Array, Array], span: Span, rule: AttentionRule
    ) -> list[Array]:
        """Attend in parts, so that not the scores of all are in memory at once."""
        outs: list[Array] = []
        for part in span.parts(q.shape[1]):
            if outs:
                self._device.evaluate(outs[-1])
            rows = slice(part.start - span.start, part.stop - span.start)
            outs.append(self._attend_at_once(q[rows], held, part, rule))
        return outs

    def _attend_at_once(
        self, q: Array, held: tuple[Array, Array], span: Span, rule: AttentionRule
    ) -> Array:
        """Queries (T, H, D) over what the buffers hold: (T, H * Dv), in the type that they have."""
        ops, (keys, values) = self._device.ops, held
        seen, sinks = slice(span.first, span.stop), rule.sinks
        dtype = keys.dtype if keys.dtype == values.dtype else mx.float32
        out = self._device.fast.scaled_dot_product_attention(
            as_type(ops, q.swapaxes(0, 1)[None], dtype),
            as_type(ops, keys[None, :, seen], dtype),
            as_type(ops, values[None, :, seen], dtype),
            scale=rule.scale,
            mask=self._mask(span),
            sinks=None if sinks is None else as_type(ops, sinks, dtype),
        )
        return as_type(ops, out[0].swapaxes(0, 1).reshape(span.tokens, -1), mx.float32)

    def _mask(self, span: Span) -> Array | str | None:
        """What MLX is to be told."""
        if span.tokens == 1:
            return None
        if span.is_plain:
            return "causal"
        if span.window not in self._masks or self._masks[span.window][0] != span:
            self._masks[span.window] = (span, self._device.send(span.mask()))
        return self._masks[span.window][1]
