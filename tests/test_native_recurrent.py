"""Native convolution and delta rule against the reference, and against themselves."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from native_blocks import ISAS

from moestream import _native
from moestream.backends import Convolution, DeltaRule, Mamba2Rule, MambaRule
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
    rule = Convolution(kernel, silu=silu)
    got = backend(monkeypatch, isa).causal_conv(x, past, rule)
    expected = REFERENCE.causal_conv(x, theirs, rule)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(past, theirs)


@each_isa
@pytest.mark.parametrize("width", [4, 17])
def test_convolution_adds_its_bias(monkeypatch, isa, width):
    rng = np.random.default_rng(width)
    x, kernel, past, bias = (
        rng.standard_normal(shape, np.float32)
        for shape in ((3, 70), (70, width), (width - 1, 70), (70,))
    )
    theirs = past.copy()
    rule = Convolution(kernel, bias, silu=True)
    got = backend(monkeypatch, isa).causal_conv(x, past, rule)
    expected = REFERENCE.causal_conv(x, theirs, rule)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    without = REFERENCE.causal_conv(x, theirs.copy(), replace(rule, bias=None))
    assert np.abs(expected - without).max() > 0.1


def channel_scan(rng, tokens: int, channels: int, size: int) -> tuple[tuple, MambaRule]:
    x, steps = rng.standard_normal((2, tokens, channels), np.float32)
    steps[0, 0] = 30  # where 1 + e^x is e^x
    b, c = rng.standard_normal((2, tokens, size), np.float32)
    rates = -rng.random((channels, size), np.float32)
    bias, skips = rng.standard_normal((2, channels), np.float32)
    return (x, steps, b, c), MambaRule(rates, bias, skips)


@each_isa
@pytest.mark.parametrize(("channels", "size"), [(1, 1), (70, 10), (128, 16)])
@pytest.mark.parametrize("tokens", [1, 30])
def test_mamba_is_the_references(monkeypatch, isa, channels, size, tokens):
    rng = np.random.default_rng(channels + tokens)
    inputs, rule = channel_scan(rng, tokens, channels, size)
    state = rng.standard_normal((channels, size), np.float32)
    theirs = state.copy()
    got = backend(monkeypatch, isa).mamba(*inputs, state, rule)
    expected = REFERENCE.mamba(*inputs, theirs, rule)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-5)
    np.testing.assert_allclose(state, theirs, rtol=2e-6, atol=2e-5)


def test_mamba_gives_the_same_bits_in_every_way(monkeypatch):
    inputs, rule = channel_scan(np.random.default_rng(1), 30, 130, 12)
    results = []
    for isa, threads, chunk in product(ISAS, (1, 5), (1, 7, 30)):
        ops = backend(monkeypatch, isa, threads)
        state = ops.zeros((130, 12))
        parts = [
            ops.mamba(*(part[at : at + chunk] for part in inputs), state, rule)
            for at in range(0, 30, chunk)
        ]
        results.append(np.concatenate([*parts, state.reshape(-1, 130)]))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def kimi_inputs(rng, tokens: int, heads: int, dim: int) -> tuple[np.ndarray, ...]:
    qkv = rng.standard_normal((tokens, 3 * heads * dim), np.float32)
    write = 3 * rng.standard_normal((tokens, heads), np.float32)
    decay = -2 * rng.random((tokens, heads * dim), np.float32)
    return qkv, write, decay


@each_isa
@pytest.mark.parametrize(("heads", "dim"), [(1, 8), (4, 24), (3, 128), (2, 20)])
@pytest.mark.parametrize("tokens", [1, 30])
def test_kimis_delta_rule_is_the_references(monkeypatch, isa, heads, dim, tokens):
    rng = np.random.default_rng(dim + tokens)
    inputs = kimi_inputs(rng, tokens, heads, dim)
    state = rng.standard_normal((heads, dim, dim), np.float32)
    theirs = state.copy()
    got = backend(monkeypatch, isa).kimi_delta(*inputs, state, 1e-3)
    expected = REFERENCE.kimi_delta(*inputs, theirs, 1e-3)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(state, theirs, rtol=0, atol=1e-5)


def test_equal_decays_are_the_plain_delta_rules():
    rng = np.random.default_rng(2)
    qkv, write, _ = kimi_inputs(rng, 9, 4, 16)
    heads = np.arange(4, dtype=np.int32)
    rule = DeltaRule(np.full(4, -1, np.float32), np.zeros(4, np.float32), heads, 4, 16, 1e-3)
    forget = rng.standard_normal((9, 4), np.float32)
    states = np.zeros((2, 4, 16, 16), np.float32)
    plain = REFERENCE.delta_net(qkv, write, forget, states[0], rule)
    decay = np.repeat(-np.logaddexp(np.float32(0), forget), 16, axis=1)
    got = REFERENCE.kimi_delta(qkv, write, decay, states[1], 1e-3)
    np.testing.assert_allclose(got, plain, rtol=0, atol=1e-6)


def test_kimis_delta_rule_gives_the_same_bits_in_every_way(monkeypatch):
    inputs = kimi_inputs(np.random.default_rng(1), 30, 6, 40)
    results = []
    for isa, threads, chunk in product(ISAS, (1, 5), (1, 7, 30)):
        ops = backend(monkeypatch, isa, threads)
        state = ops.zeros((6, 40, 40))
        parts = [
            ops.kimi_delta(*(part[at : at + chunk] for part in inputs), state, 1e-3)
            for at in range(0, 30, chunk)
        ]
        results.append(np.concatenate([*parts, state.reshape(-1, 240)]))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def scan_of(rng, heads: int, groups: int, dim: int, size: int) -> Mamba2Rule:
    rates, bias, skips = (rng.standard_normal(heads, np.float32) for _ in range(3))
    return Mamba2Rule(-np.abs(rates), bias, skips, groups, dim, size)


def scanned(rng, tokens: int, rule: Mamba2Rule) -> tuple[np.ndarray, np.ndarray]:
    heads = len(rule.rates)
    columns = heads * rule.dim + 2 * rule.groups * rule.size
    xbc = rng.standard_normal((tokens, columns), np.float32)
    steps = 2 * rng.standard_normal((tokens, heads), np.float32)
    steps[0, 0] = 30  # where 1 + e^x is e^x
    return xbc, steps


@each_isa
@pytest.mark.parametrize(
    ("heads", "groups", "dim", "size"),
    [(1, 1, 4, 8), (6, 2, 12, 24), (8, 8, 64, 128), (4, 2, 6, 8)],
)
@pytest.mark.parametrize("tokens", [1, 30])
def test_mamba2_is_the_references(monkeypatch, isa, heads, groups, dim, size, tokens):
    rng = np.random.default_rng(dim + tokens)
    rule = scan_of(rng, heads, groups, dim, size)
    xbc, steps = scanned(rng, tokens, rule)
    state = rng.standard_normal((heads, dim, size), np.float32)
    theirs = state.copy()
    got = backend(monkeypatch, isa).mamba2(xbc, steps, state, rule)
    expected = REFERENCE.mamba2(xbc, steps, theirs, rule)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-5 * size)
    np.testing.assert_allclose(state, theirs, rtol=2e-6, atol=2e-5)


def test_mamba2_gives_the_same_bits_in_every_way(monkeypatch):
    rng = np.random.default_rng(1)
    rule = scan_of(rng, 6, 3, 12, 40)
    xbc, steps = scanned(rng, 30, rule)
    results = []
    for isa, threads, chunk in product(ISAS, (1, 5), (1, 7, 30)):
        ops = backend(monkeypatch, isa, threads)
        state = ops.zeros((6, 12, 40))
        parts = [
            ops.mamba2(xbc[at : at + chunk], steps[at : at + chunk], state, rule)
            for at in range(0, 30, chunk)
        ]
        results.append(np.concatenate([*parts, state.reshape(-1, 72)]))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_states_that_do_not_fit_are_refused():
    run, rule = _native.Context(1), scan_of(np.random.default_rng(0), 4, 2, 4, 8)

    def scan(state: tuple[int, ...], groups: int = 2, columns: int = 48) -> None:
        inputs = np.zeros((3, columns), np.float32), np.zeros((3, 4), np.float32)
        parameters = rule.rates, rule.time_bias, rule.skips, groups
        outputs = np.zeros(state, np.float32), np.zeros((3, 16), np.float32)
        run.mamba2(*inputs, *parameters, *outputs)

    scan((4, 4, 8))
    with pytest.raises(ValueError, match="4 by 12 are no multiples of 4 and 8"):
        scan((4, 4, 12))
    with pytest.raises(ValueError, match="4 heads do not divide among 3 groups"):
        scan((4, 4, 8), groups=3)
    with pytest.raises(ValueError, match="xbc has shape"):
        scan((4, 4, 8), columns=40)
    qkv, write, decay = kimi_inputs(np.random.default_rng(0), 3, 2, 8)
    state, out = np.zeros((2, 8, 8), np.float32), np.zeros((3, 16), np.float32)
    run.kimi_delta(qkv, write, decay, 1e-3, state, out)
    with pytest.raises(ValueError, match="decay has shape"):
        run.kimi_delta(qkv, write, write, 1e-3, state, out)
    inputs, channels = channel_scan(np.random.default_rng(0), 3, 5, 2)
    parameters = channels.rates, channels.time_bias, channels.skips
    state, out = np.zeros((5, 2), np.float32), np.zeros((3, 5), np.float32)
    run.mamba(*inputs, *parameters, state, out)
    with pytest.raises(ValueError, match="b has shape"):
        run.mamba(*inputs[:2], inputs[0], inputs[3], *parameters, state, out)
    with pytest.raises(ValueError, match="heads of 12 are no multiple of 8"):
        run.kimi_delta(qkv, write, decay, 1e-3, np.zeros((2, 12, 12), np.float32), out)


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
            mixed = ops.causal_conv(qkv, past, Convolution(kernel, silu=True))
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
