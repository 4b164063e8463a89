"""NumPy float32: the executable specification of layers whose memory does not grow.

Every operation is the plain formula, token by token.
"""

import numpy as np

from moestream.backends.numpy_arrays import Floats, NumpyArrays
from moestream.backends.recurrent_rules import Convolution, DeltaRule, Mamba2Rule, MambaRule


class RecurrentFormulas(NumpyArrays):
    """Part of the reference ``Backend``; see there for shapes and meaning."""

    def causal_conv(self, x: Floats, past: Floats, rule: Convolution) -> Floats:
        """A weighted sum of shifted inputs."""
        seen = np.concatenate([past, x])  # (w - 1 + T, C)
        past[:] = seen[len(x) :]
        shifted = np.lib.stride_tricks.sliding_window_view(seen, rule.kernel.shape[1], axis=0)
        out: Floats = (shifted * rule.kernel).sum(axis=-1)
        if rule.bias is not None:
            out = out + rule.bias
        return out * self.sigmoid(out) if rule.silu else out  # (T, C)

    def delta_net(
        self, qkv: Floats, write: Floats, forget: Floats, state: Floats, rule: DeltaRule
    ) -> Floats:
        """Forget, correct what the key finds towards the value, read by the query."""
        heads, dim, keys = len(rule.key_heads), rule.dim, rule.num_key_heads
        q, k, v = np.split(qkv.reshape(len(qkv), -1, dim), [keys, 2 * keys], axis=1)
        q, k = (_unit(part, rule.eps)[:, rule.key_heads] for part in (q, k))  # (T, H, D)
        kept = np.exp(rule.rates * self.softplus(forget + rule.time_bias))
        written = self.sigmoid(write)
        out = np.empty((len(qkv), heads, dim), np.float32)
        for token in range(len(qkv)):
            state *= kept[token, :, None, None]
            found = np.einsum("hvk,hk->hv", state, k[token])
            change = (v[token] - found) * written[token, :, None]
            state += change[:, :, None] * k[token, :, None, :]
            out[token] = np.einsum("hvk,hk->hv", state, q[token]) * np.float32(dim**-0.5)
        return out.reshape(len(qkv), -1)  # (T, H * D)

    def kimi_delta(
        self, qkv: Floats, write: Floats, decay: Floats, state: Floats, eps: float
    ) -> Floats:
        """Forget, correct what the key finds towards the value, read by the query."""
        tokens, (heads, dim, _) = len(qkv), state.shape
        q, k, v = np.moveaxis(qkv.reshape(tokens, 3, heads, dim), 1, 0)
        q, k = _unit(q, eps), _unit(k, eps)
        kept = np.exp(decay).reshape(tokens, heads, 1, dim)
        written = self.sigmoid(write)
        out = np.empty((tokens, heads, dim), np.float32)
        for token in range(tokens):
            state *= kept[token]
            found = np.einsum("hvk,hk->hv", state, k[token])
            change = (v[token] - found) * written[token, :, None]
            state += change[:, :, None] * k[token, :, None, :]
            out[token] = np.einsum("hvk,hk->hv", state, q[token]) * np.float32(dim**-0.5)
        return out.reshape(tokens, -1)  # (T, H * D)

    def mamba(
        self, x: Floats, steps: Floats, b: Floats, c: Floats, state: Floats, rule: MambaRule
    ) -> Floats:
        """Decay, write, read; what is written is as large as the step is long."""
        step = self.softplus(steps + rule.time_bias)  # (T, C)
        out: Floats = rule.skips * x
        for token in range(len(x)):
            state *= np.exp(step[token, :, None] * rule.rates)
            state += (step[token] * x[token])[:, None] * b[token]
            out[token] += state @ c[token]
        return out  # (T, C)

    def mamba2(self, xbc: Floats, steps: Floats, state: Floats, rule: Mamba2Rule) -> Floats:
        """Decay, write, read; what is written is as large as the step is long."""
        heads, tokens = len(rule.rates), len(xbc)
        inner, shared = heads * rule.dim, rule.groups * rule.size
        x, b, c = np.split(xbc, [inner, inner + shared], axis=1)
        x = x.reshape(tokens, heads, rule.dim)
        of_head = np.arange(heads) // (heads // rule.groups)
        b, c = (part.reshape(tokens, rule.groups, rule.size)[:, of_head] for part in (b, c))
        step = self.softplus(steps + rule.time_bias)  # (T, H)
        kept = np.exp(rule.rates * step)
        out = np.empty_like(x)
        for token in range(tokens):
            state *= kept[token, :, None, None]
            written = x[token] * step[token, :, None]  # (H, D)
            state += written[:, :, None] * b[token, :, None, :]
            out[token] = np.einsum("hdn,hn->hd", state, c[token])
        out += rule.skips[:, None] * x
        return out.reshape(tokens, -1)  # (T, H * D)


def _unit(x: Floats, eps: float) -> Floats:
    length: Floats = np.sqrt(np.square(x).sum(axis=-1, keepdims=True) + np.float32(eps))
    return x / length
