"""Layers that remember without positions, in MLX's operations: convolution, delta rule, Mamba-2.

Token by token, as the reference has it. No kernel of our own: a long prompt is many small launches.
"""

from typing import Any

from moestream.backends.mlx_arrays import MlxArrays
from moestream.backends.recurrent_rules import Convolution, DeltaRule, Mamba2Rule, MambaRule
from moestream.backends.types import Array


class MlxRecurrent(MlxArrays):
    """Part of the MLX ``Backend``; see there for shapes and meaning."""

    def causal_conv(self, x: Array, past: Array, rule: Convolution) -> Array:
        """A weighted sum of shifted inputs."""
        ops, kernel = self._mx, rule.kernel
        tokens, width = len(x), kernel.shape[1]
        seen = ops.concatenate([past, x])  # (w - 1 + T, C)
        past[:] = seen[tokens:]
        out = ops.multiply(seen[:tokens], kernel[:, 0])
        for i in range(1, width):
            out = ops.add(out, ops.multiply(seen[i : i + tokens], kernel[:, i]))
        if rule.bias is not None:
            out = ops.add(out, rule.bias)
        return ops.multiply(out, ops.sigmoid(out)) if rule.silu else out  # (T, C)

    def delta_net(
        self, qkv: Array, write: Array, forget: Array, state: Array, rule: DeltaRule
    ) -> Array:
        """Forget, correct, read."""
        ops, key_heads = self._mx, self._device.send(rule.key_heads)
        tokens, dim, keys = len(qkv), rule.dim, rule.num_key_heads
        parts = qkv.reshape(tokens, -1, dim)
        q, k, v = parts[:, :keys], parts[:, keys : 2 * keys], parts[:, 2 * keys :]
        q, k = (ops.take(_unit(ops, part, rule.eps), key_heads, axis=1) for part in (q, k))
        asked = ops.logaddexp(ops.add(forget, rule.time_bias), 0.0)
        kept = ops.exp(ops.multiply(rule.rates, asked))[..., None, None]  # (T, H, 1, 1)
        return _delta(ops, (q, k, v), write, kept, state)

    def kimi_delta(self, qkv: Array, write: Array, decay: Array, state: Array, eps: float) -> Array:
        """The same with a decay a coordinate."""
        ops = self._mx
        heads, dim, _ = state.shape
        parts = qkv.reshape(len(qkv), 3, heads, dim)
        q, k = _unit(ops, parts[:, 0], eps), _unit(ops, parts[:, 1], eps)
        kept = ops.exp(decay).reshape(-1, heads, 1, dim)
        return _delta(ops, (q, k, parts[:, 2]), write, kept, state)

    def mamba(
        self, x: Array, steps: Array, b: Array, c: Array, state: Array, rule: MambaRule
    ) -> Array:
        """Decay, write, read."""
        ops = self._mx
        step = ops.logaddexp(ops.add(steps, rule.time_bias), 0.0)  # (T, C)
        written = ops.multiply(step, x)[..., None]
        memory, outs = state, []
        for token in range(len(x)):
            kept = ops.exp(ops.multiply(step[token][:, None], rule.rates))
            memory = ops.add(ops.multiply(memory, kept), ops.multiply(written[token], b[token]))
            outs.append(ops.matmul(memory, c[token]))
        state[:] = memory
        return ops.add(ops.stack(outs), ops.multiply(x, rule.skips))  # (T, C)

    def mamba2(self, xbc: Array, steps: Array, state: Array, rule: Mamba2Rule) -> Array:
        """Decay, write, read."""
        ops = self._mx
        tokens, heads = len(xbc), state.shape[0]
        inner, shared = heads * rule.dim, rule.groups * rule.size
        x = xbc[:, :inner].reshape(tokens, heads, rule.dim)
        b, c = (
            ops.repeat(part.reshape(tokens, rule.groups, rule.size), heads // rule.groups, axis=1)
            for part in (xbc[:, inner : inner + shared], xbc[:, inner + shared :])
        )
        step = ops.logaddexp(ops.add(steps, rule.time_bias), 0.0)  # (T, H)
        kept = ops.exp(ops.multiply(rule.rates, step))[..., None, None]
        written = ops.multiply(x, step[..., None])[..., None]  # (T, H, D, 1)
        memory, outs = state, []
        for token in range(tokens):
            memory = ops.multiply(memory, kept[token])
            memory = ops.add(memory, ops.multiply(written[token], b[token][:, None]))
            outs.append(ops.matmul(memory, c[token][..., None])[..., 0])
        state[:] = memory
        out = ops.add(ops.stack(outs), ops.multiply(x, rule.skips[:, None]))
        return out.reshape(tokens, -1)  # (T, H * D)


def _delta(
    ops: Any, qkv: tuple[Array, Array, Array], write: Array, kept: Array, state: Array
) -> Array:
    """Forget, correct, read: q, k and v (T, H, D), ``kept`` (T, H, 1, 1 or D) -> (T, H * D)."""
    tokens, _, dim = qkv[0].shape
    written = ops.sigmoid(write)[..., None, None]
    q, k, v = (part[..., None] for part in qkv)  # columns
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
