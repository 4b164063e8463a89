"""NumPy float32: the executable specification of attention and its positions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from moestream.backends.kv_blocks import append_rows
from moestream.backends.maths import NUMPY
from moestream.backends.numpy_arrays import Floats, NumpyArrays
from moestream.backends.sparse import Chosen, choose_in_blocks
from moestream.backends.types import QKV, AttentionRule, IndexQueries, KVPass, RopeStyle


class AttentionFormulas(NumpyArrays):
    """Part of the reference ``Backend``; see there for shapes and meaning."""

    def rope(self, x: Floats, cos: Floats, sin: Floats, style: RopeStyle) -> Floats:
        """Turn pairs of coordinates; what lies beyond the rotary dimensions passes through."""
        half = cos.shape[1]
        cos, sin = cos[:, None], sin[:, None]  # (T, 1, D/2)
        first, second = _rope_pairs(style, half)
        a, b = x[..., first], x[..., second]
        out = x.copy()
        out[..., first] = a * cos - b * sin
        out[..., second] = a * sin + b * cos
        return out  # (T, H, D)

    def kv_pass(self, parts: Sequence[tuple[Any, int, int]]) -> KVPass:
        """As they are."""
        return parts

    def attention(
        self, qkv: QKV, kv_pass: KVPass, layer: int, rule: AttentionRule, seen: Chosen = None
    ) -> Floats:
        """One sequence after the other."""
        (q, k, v), outs, row = qkv, [], 0
        for store, start, tokens in kv_pass:
            rows = slice(row, row + tokens)
            keys, values = store.stores.layers[layer]
            past_keys = append_rows(store, keys, k[rows], start)
            past_values = past_keys[..., : rule.value_dim]
            if v is not None:
                past_values = append_rows(store, values, v[rows], start)
            chosen = None if seen is None else seen[rows, :, : start + tokens]
            outs.append(_attend(q[rows], past_keys, past_values, start, rule, chosen))
            row += tokens
        return np.concatenate(outs)  # (T, H * D)

    def choose(self, index: IndexQueries, k: Floats, kv_pass: KVPass, layer: int) -> Chosen:
        """See ``sparse``."""
        return choose_in_blocks(index, k, kv_pass, layer, self)


def _attend(
    q: Floats,
    keys: Floats,
    values: Floats,
    start: int,
    rule: AttentionRule,
    seen: Chosen,
) -> Floats:
    """Softmax of the scaled scores over the visible positions, one head at a time."""
    tokens, heads, _ = q.shape
    stop, group = start + tokens, heads // len(keys)
    ages = np.arange(start, stop)[:, None] - np.arange(stop)  # (T, S)
    hidden = (ages < 0) | (ages >= (rule.window or stop))
    out = np.empty((tokens, heads, values.shape[2]), np.float32)
    for head in range(heads):
        scores = q[:, head] @ keys[head // group].T * np.float32(rule.scale)  # (T, S)
        if rule.cap:
            scores = np.tanh(scores / np.float32(rule.cap)) * np.float32(rule.cap)
        unseen = hidden if seen is None else hidden | (seen[:, head // group % seen.shape[1]] == 0)
        scores[unseen] = -np.inf
        if rule.sinks is not None:
            scores = np.column_stack([scores, np.full(tokens, rule.sinks[head])])
        out[:, head] = NUMPY.softmax(scores)[:, :stop] @ values[head // group]
    return out.reshape(tokens, -1)  # (T, H * D)


def _rope_pairs(style: RopeStyle, half: int) -> tuple[slice, slice]:
    if style == "interleaved":
        return slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    return slice(0, half), slice(half, 2 * half)
