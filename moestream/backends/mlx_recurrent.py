"""Layers that remember without positions, in MLX's operations: convolution and delta rule.

Token by token, as the reference has it. No kernel of our own: a long prompt is many small launches.
"""

from typing import Any

from moestream.backends.types import Array, DeltaRule


def causal_conv(ops: Any, x: Array, kernel: Array, past: Array, *, silu: bool) -> Array:
    """A weighted sum of shifted inputs; see ``Backend.causal_conv``."""
    tokens, width = len(x), kernel.shape[1]
    seen = ops.concatenate([past, x])  # (w - 1 + T, C)
    past[:] = seen[tokens:]
    out = ops.multiply(seen[:tokens], kernel[:, 0])
    for i in range(1, width):
        out = ops.add(out, ops.multiply(seen[i : i + tokens], kernel[:, i]))
    return ops.multiply(out, ops.sigmoid(out)) if silu else out  # (T, C)


def delta_net(
    ops: Any,
    qkv: Array,
    write: Array,
    forget: Array,
    state: Array,
    rule: DeltaRule,
    key_heads: Array,
) -> Array:
    """Forget, correct, read; see ``Backend.delta_net``. ``key_heads`` are the rule's."""
    tokens, dim, keys = len(qkv), rule.dim, rule.num_key_heads
    parts = qkv.reshape(tokens, -1, dim)
    q, k, v = parts[:, :keys], parts[:, keys : 2 * keys], parts[:, 2 * keys :]
    q, k = (ops.take(_unit(ops, part, rule.eps), key_heads, axis=1) for part in (q, k))
    asked = ops.logaddexp(ops.add(forget, rule.time_bias), 0.0)
    kept = ops.exp(ops.multiply(rule.rates, asked))[..., None, None]  # (T, H, 1, 1)
    written = ops.sigmoid(write)[..., None, None]
    q, k, v = q[..., None], k[..., None], v[..., None]  # columns
    memory, outs = state, []
    for token in range(tokens):
        memory = ops.multiply(memory, kept[token])
        missing = ops.subtract(v[token], ops.matmul(memory, k[token]))  # (H, D, 1)
        change = ops.multiply(missing, written[token])
        memory = ops.add(memory, ops.matmul(change, k[token].swapaxes(1, 2)))
        outs.append(ops.matmul(memory, q[token]))
    state[:] = memory
    out = ops.multiply(ops.stack(outs), dim**-0.5)
    return out.reshape(tokens, -1)  # (T, H * D)


def _unit(ops: Any, x: Array, eps: float) -> Array:
    """Vectors of the last axis, brought to length one."""
    squares = ops.sum(ops.multiply(x, x), axis=-1, keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.add(squares, eps)))
