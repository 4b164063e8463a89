"""The native kernels of layers whose memory does not grow; formulas for shapes that have none."""

import numpy as np

from moestream.backends.cpu_maths import MathKernels
from moestream.backends.numpy_arrays import Floats
from moestream.backends.recurrent_rules import Convolution, DeltaRule, Mamba2Rule, MambaRule
from moestream.backends.reference_recurrent import RecurrentFormulas

_MOST_WIDTH = 16
"""Weights a channel that the kernel of convolutions takes."""

_FORMULAS = RecurrentFormulas()
"""For shapes that have no kernel."""


class RecurrentKernels(MathKernels):
    """Part of the native ``Backend``; see there for shapes and meaning."""

    def causal_conv(self, x: Floats, past: Floats, rule: Convolution) -> Floats:
        """Channel by channel, shared out among the threads."""
        if rule.kernel.shape[1] > _MOST_WIDTH:
            return _FORMULAS.causal_conv(x, past, rule)
        out = np.empty_like(x)
        self._run.causal_conv(x, rule.kernel, past, rule.silu, out, rule.bias)
        return out  # (T, C)

    def delta_net(
        self, qkv: Floats, write: Floats, forget: Floats, state: Floats, rule: DeltaRule
    ) -> Floats:
        """Head by head, each one's state read and written once a token."""
        if state.shape[1] % 8:
            return _FORMULAS.delta_net(qkv, write, forget, state, rule)
        out = _rows_of_heads(qkv, state)
        parameters = rule.rates, rule.time_bias, rule.key_heads, rule.num_key_heads, rule.eps
        self._run.delta_net(qkv, write, forget, *parameters, state, out)
        return out  # (T, H * D)

    def kimi_delta(
        self, qkv: Floats, write: Floats, decay: Floats, state: Floats, eps: float
    ) -> Floats:
        """Head by head, as ``delta_net``."""
        if state.shape[1] % 8:
            return _FORMULAS.kimi_delta(qkv, write, decay, state, eps)
        out = _rows_of_heads(qkv, state)
        self._run.kimi_delta(qkv, write, decay, eps, state, out)
        return out  # (T, H * D)

    def mamba(
        self, x: Floats, steps: Floats, b: Floats, c: Floats, state: Floats, rule: MambaRule
    ) -> Floats:
        """Channels shared out among the threads."""
        out = np.empty_like(x)
        self._run.mamba(x, steps, b, c, rule.rates, rule.time_bias, rule.skips, state, out)
        return out  # (T, C)

    def mamba2(self, xbc: Floats, steps: Floats, state: Floats, rule: Mamba2Rule) -> Floats:
        """Head by head, each one's state read and written once a token."""
        if state.shape[1] % 4 or state.shape[2] % 8:
            return _FORMULAS.mamba2(xbc, steps, state, rule)
        out = _rows_of_heads(xbc, state)
        parameters = rule.rates, rule.time_bias, rule.skips, rule.groups
        self._run.mamba2(xbc, steps, *parameters, state, out)
        return out  # (T, H * D)


def _rows_of_heads(x: Floats, state: Floats) -> Floats:
    """Room for what each head (H, D, ...) says of each token."""
    heads, dim, _ = state.shape
    return np.empty((len(x), heads * dim), np.float32)
