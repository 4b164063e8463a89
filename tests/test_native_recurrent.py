"""Native convolution and delta rule against the reference, and against themselves."""

from itertools import product

import numpy as np
import pytest
from native_blocks import ISAS

from moestream import _native
from moestream.backends import DeltaRule
from moestream.backends.cpu import CpuBackend
from moestream.backends.reference import ReferenceBackend

REFERENCE = ReferenceBackend()
each_isa = pytest.mark.parametrize("isa", ISAS)


def backend(monkeypatch: pytest.MonkeyPatch, isa: str, threads: int = 2) -> CpuBackend:
    monkeypatch.setenv("MOESTREAM_ISA", isa)
    return CpuBackend(threads)


@each_isa
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(("channels", "width"), [(1, 1), (70, 4), (1024, 2), (2500, 3), (8, 17)])
@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_convolution_is_the_references(monkeypatch, isa, channels, width, tokens, silu):
    rng = np.random.default_rng(width)
    x, kernel, past = (
        rng.standard_normal(shape, np.float32)
        for shape in ((tokens, channels), (channels, width), (width - 1, channels))
    )
    theirs = past.copy()
    got = backend(monkeypatch, isa).causal_conv(x, kernel, past, silu=silu)
    expected = REFERENCE.causal_conv(x, kernel, theirs, silu=silu)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(past, theirs)


def rule_of(rng, keys: int, heads: int, dim: int) -> DeltaRule:
    rates = -rng.random(heads, np.float32)
    bias = 2 * rng.standard_normal(heads, np.float32)
    order = rng.integers(0, keys, heads).astype(np.int32)
    return DeltaRule(rates, bias, order, keys, dim, 1e-3)


def inputs_of(rng, tokens: int, rule: DeltaRule) -> tuple[np.ndarray, ...]:
    heads = len(rule.rates)
    qkv = rng.standard_normal((tokens, (2 * rule.num_key_heads + heads) * rule.dim), np.float32)
    write, forget = 3 * rng.standard_normal((2, tokens, heads), np.float32)
    forget[0, 0] = 40  # where 1 + e^x is e^x
    return qkv, write, forget


@each_isa
@pytest.mark.parametrize(("keys", "heads", "dim"), [(1, 1, 8), (2, 6, 24), (4, 8, 128), (2, 2, 20)])
@pytest.mark.parametrize("tokens", [1, 30])
def test_delta_rule_is_the_references(monkeypatch, isa, keys, heads, dim, tokens):
    rng = np.random.default_rng(dim + tokens)
    rule = rule_of(rng, keys, heads, dim)
    inputs = inputs_of(rng, tokens, rule)
    state = rng.standard_normal((heads, dim, dim), np.float32)
    theirs = state.copy()
    got = backend(monkeypatch, isa).delta_net(*inputs, state, rule)
    expected = REFERENCE.delta_net(*inputs, theirs, rule)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(state, theirs, rtol=0, atol=1e-5)


def test_the_same_bits_in_every_way(monkeypatch):
    rng = np.random.default_rng(1)
    rule = rule_of(rng, 3, 6, 40)
    inputs, kernel = inputs_of(rng, 30, rule), rng.standard_normal((480, 4), np.float32)
    results = []
    for isa, threads, chunk in product(ISAS, (1, 2, 5), (1, 7, 30)):
        ops = backend(monkeypatch, isa, threads)
        past, state = ops.zeros((3, 480)), ops.zeros((6, 40, 40))
        parts = []
        for first in range(0, 30, chunk):
            qkv, write, forget = (part[first : first + chunk] for part in inputs)
            mixed = ops.causal_conv(qkv, kernel, past, silu=True)
            parts.append(ops.delta_net(mixed, write, forget, state, rule))
        results.append(np.concatenate([*parts, state.reshape(-1, 240), past.reshape(-1, 240)]))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_arguments_that_do_not_fit_are_refused():
    run = _native.Context(1)
    rule = rule_of(np.random.default_rng(0), 2, 4, 8)

    def delta(rule: DeltaRule, state: tuple[int, ...], keys: int = 2, tokens: int = 3) -> None:
        heads = np.zeros((tokens, 4), np.float32)
        run.delta_net(
            *(np.zeros((tokens, 64), np.float32), heads, heads),
            *(rule.rates, rule.time_bias, rule.key_heads, keys, 1e-6),
            *(np.zeros(state, np.float32), np.zeros((tokens, 32), np.float32)),
        )

    delta(rule, (4, 8, 8))
    with pytest.raises(ValueError, match="state has shape"):
        delta(rule, (4, 8, 16))
    with pytest.raises(ValueError, match="no multiple of 8"):
        delta(rule, (4, 4, 4))
    with pytest.raises(ValueError, match="qkv has shape"):
        delta(rule, (4, 8, 8), keys=3)
    rule.key_heads[1] = 2
    with pytest.raises(ValueError, match="value head 1 goes with key head 2 of 2"):
        delta(rule, (4, 8, 8))
    x = np.zeros((2, 5), np.float32)
    with pytest.raises(ValueError, match="17 weights a channel, expected 1 to 16"):
        run.causal_conv(x, np.zeros((5, 17), np.float32), np.zeros((16, 5), np.float32), False, x)
    with pytest.raises(ValueError, match="past has shape"):
        run.causal_conv(x, np.zeros((5, 4), np.float32), np.zeros((2, 5), np.float32), False, x)
