"""Native attention, norms, rotation and routing against the reference, and against themselves."""

import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from typing import get_args

import numpy as np
import pytest
from kv_held import Held
from native_blocks import ISAS

from moestream import _native
from moestream.backends import Activation, Routing
from moestream.backends.cpu import CpuBackend
from moestream.backends.reference import ReferenceBackend
from moestream.backends.types import AttentionRule
from moestream.errors import UnsupportedModelError

REFERENCE = ReferenceBackend()
each_isa = pytest.mark.parametrize("isa", ISAS)


def backend(monkeypatch: pytest.MonkeyPatch, isa: str, threads: int = 2) -> CpuBackend:
    monkeypatch.setenv("MOESTREAM_ISA", isa)
    return CpuBackend(threads)


@pytest.mark.parametrize(
    ("kv_types", "dim"),
    [
        *product([("f16", "f16"), ("f32", "f32")], [64, 128, 20, 8]),
        *product([("q8_0", "q8_0"), ("q8_0", "q4_0"), ("f32", "q8_0")], [64, 96]),
        (("q4_0", "f16"), 64),
    ],
)
@pytest.mark.parametrize(("heads", "kv_heads"), [(9, 3), (8, 1), (4, 4), (40, 1)])
def test_attention_is_the_references(monkeypatch, kv_types, dim, heads, kv_heads):
    all_ops = [backend(monkeypatch, isa) for isa in ISAS]
    for start, tokens in ((0, 1), (0, 37), (300, 1), (255, 2), (700, 5)):
        check_attention(all_ops, kv_types, dim, (heads, kv_heads), start, tokens)


def check_attention(all_ops, kv_types, dim, all_heads, start, tokens):
    rng = np.random.default_rng(start + tokens)
    heads, kv_heads = all_heads
    held = Held(kv_heads, start + tokens + 3, (dim, dim), kv_types, rng=rng)
    theirs = held.twin()
    q = rng.standard_normal((tokens, heads, dim), np.float32) * 2
    k, v = rng.standard_normal((2, tokens, kv_heads, dim), np.float32)
    rule = AttentionRule(dim**-0.5)
    expected = theirs.attend(REFERENCE, q, k, v, start, rule)
    for ops in all_ops:
        ours = held.twin()
        got = ours.attend(ops, q, k, v, start, rule)
        # Float32 scores of up to 20, off by some units in the last place, and their exponentials.
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
        for which in (0, 1):
            np.testing.assert_array_equal(ours.rows(which), theirs.rows(which))


ODD = {
    "window": {"window": 9},
    "window of a split": {"window": 300},
    "sinks": {"sinks": True},
    "both": {"window": 5, "sinks": True},
    "cap": {"cap": 1.5},
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(("start", "tokens"), [(0, 37), (700, 5), (511, 1)])
@pytest.mark.parametrize(
    ("dim", "value_dim", "in_keys"),
    [(32, 32, False), (192, 128, False), (32, 64, False), (20, 12, False), (576, 512, True)],
)
def test_attention_with_windows_sinks_and_other_values_is_the_references(
    monkeypatch, odd, start, tokens, dim, value_dim, in_keys
):
    rng = np.random.default_rng(start + tokens)
    heads, kv_heads = (16, 1) if in_keys else (6, 2)
    options = dict(ODD[odd])
    if options.get("sinks"):
        options["sinks"] = rng.standard_normal(heads, np.float32) * 3
    dims = (dim, 0 if in_keys else value_dim)
    held = Held(kv_heads, start + tokens + 3, dims, rng=rng)
    theirs = held.twin()
    q = rng.standard_normal((tokens, heads, dim), np.float32) * 2
    k = rng.standard_normal((tokens, kv_heads, dim), np.float32)
    v = None if in_keys else rng.standard_normal((tokens, kv_heads, value_dim), np.float32)
    if in_keys:
        options["value_dim"] = value_dim
    rule = AttentionRule(dim**-0.5, **options)
    expected = theirs.attend(REFERENCE, q, k, v, start, rule)
    assert expected.shape == (tokens, heads * value_dim)
    for isa in ISAS:
        got = held.twin().attend(backend(monkeypatch, isa), q, k, v, start, rule)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@each_isa
def test_attention_reads_nothing_that_has_left_the_window(monkeypatch, isa):
    ops = backend(monkeypatch, isa)
    held = Held(1, 1024, (16, 16), rng=np.random.default_rng(3))
    for which in (0, 1):
        held.set(which, range(992), np.nan)  # whole blocks of 32 positions
    q = np.ones((3, 2, 16), np.float32)
    k, v = np.ones((2, 3, 1, 16), np.float32)
    got = held.attend(ops, q, k, v, 1010, AttentionRule(0.25, window=11))
    assert np.isfinite(got).all()
    assert np.isnan(held.attend(ops, q, k, v, 1010, AttentionRule(0.25, window=20))[0]).all()


@pytest.mark.parametrize(
    ("kv_types", "dim"),
    [*product([("f16", "f16")], [64, 24, 20]), (("q8_0", "q8_0"), 64), (("f16", "q4_0"), 32)],
)
@pytest.mark.parametrize("window", [0, 70, 400])
def test_attention_has_the_same_bits_in_every_way(monkeypatch, kv_types, dim, window):
    rng = np.random.default_rng(1)
    q = rng.standard_normal((90, 6, dim), np.float32)
    k, v = rng.standard_normal((2, 90, 2, dim), np.float32)
    results = []
    for isa in ISAS:
        for threads, chunks in ((1, (90,)), (3, (1, 7, 90)), (8, (7, 90))):
            for chunk in chunks:
                ops = backend(monkeypatch, isa, threads)
                held = Held(2, 700, (dim, dim), kv_types, rng=np.random.default_rng(2))
                rule = AttentionRule(0.125, window=window)
                parts = [
                    held.attend(ops, *(x[i : i + chunk] for x in (q, k, v)), 600 + i, rule)
                    for i in range(0, 90, chunk)
                ]
                results.append(np.concatenate(parts))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@each_isa
@pytest.mark.parametrize("window", [0, 300])
def test_sequences_of_one_pass_have_the_bits_that_they_have_alone(monkeypatch, isa, window):
    """Some that decode, one that is being read, of any lengths, one with one block shared."""
    rng, rule = np.random.default_rng(4), AttentionRule(0.125, window=window)
    sizes = [(0, 1), (700, 1), (255, 1), (256, 1), (300, 37), (5, 3)]
    ops = backend(monkeypatch, isa)
    held = [Held(2, start + n, (32, 32), rng=rng) for start, n in sizes]
    rows = sum(n for _, n in sizes)
    q = rng.standard_normal((rows, 6, 32), np.float32)
    k, v = rng.standard_normal((2, rows, 2, 32), np.float32)
    alone, row = [], 0
    for one, (start, n) in zip([h.twin() for h in held], sizes, strict=True):
        alone.append(one.attend(ops, *(x[row : row + n] for x in (q, k, v)), start, rule))
        row += n
    # All stores of a pass are of one layout.
    kv_pass = ops.kv_pass([(h.store, *size) for h, size in zip(held, sizes, strict=True)])
    together = ops.attention((q, k, v), kv_pass, 1, rule)
    np.testing.assert_array_equal(together, np.concatenate(alone))


@each_isa
def test_attention_never_reads_what_is_not_yet_visible(monkeypatch, isa):
    ops = backend(monkeypatch, isa)
    rng = np.random.default_rng(3)
    held = Held(1, 64, (16, 16), rng=rng)
    for which in (0, 1):
        held.set(which, range(10, 64), np.nan)
    q = rng.standard_normal((3, 2, 16), np.float32)
    k, v = rng.standard_normal((2, 3, 1, 16), np.float32)
    k[2], v[2] = np.nan, np.inf
    got = held.attend(ops, q, k, v, 10, AttentionRule(0.25))
    assert np.isfinite(got[:2]).all()
    assert not np.isfinite(got[2]).any()


@each_isa
def test_elementwise_operations_are_the_references(monkeypatch, isa):
    ops = backend(monkeypatch, isa)
    rng = np.random.default_rng(4)
    for shape in ((1, 576), (7, 33), (300, 129)):
        a, b = (rng.standard_normal(shape, np.float32) * 5 for _ in range(2))
        weight = rng.standard_normal(shape[1]).astype(np.float32)
        np.testing.assert_array_equal(ops.add(a, b), a + b)
        for activation in get_args(Activation):
            got, expected = (maths.glu(a, b, activation) for maths in (ops, REFERENCE))
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(
            ops.rms_norm(a, weight, 1e-5), REFERENCE.rms_norm(a, weight, 1e-5), rtol=2e-6
        )
        gate = a[:, :1].copy()
        np.testing.assert_allclose(
            ops.sigmoid_scale(b, gate), REFERENCE.sigmoid_scale(b, gate), rtol=1e-6
        )


@each_isa
def test_swiglu_at_the_ends(monkeypatch, isa):
    ops = backend(monkeypatch, isa)
    gate = np.array([[-1e4, -90, 0, 90, 1e4, np.nan, np.inf]], np.float32)
    got = ops.glu(gate, np.ones_like(gate), "silu")
    np.testing.assert_allclose(got[0, :5], [0, 0, 0, 90, 1e4], atol=1e-30)
    assert np.isnan(got[0, 5])
    assert got[0, 6] == np.inf


@each_isa
@pytest.mark.parametrize("style", ["interleaved", "half"])
@pytest.mark.parametrize("turned", [32, 20])
def test_rope_is_the_references(monkeypatch, isa, style, turned):
    ops = backend(monkeypatch, isa)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((70, 3, 32), np.float32)
    angles = rng.uniform(-3, 3, (70, turned // 2)).astype(np.float32)
    cos, sin = np.cos(angles), np.sin(angles)
    np.testing.assert_allclose(
        ops.rope(x, cos, sin, style), REFERENCE.rope(x, cos, sin, style), rtol=0, atol=1e-6
    )


@each_isa
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    "routing",
    [
        *(Routing(8, normalise=normalise) for normalise in (False, True)),
        Routing(8, normalise=False, gating="softmax_of_chosen"),
        Routing(8, normalise=True, gating="sigmoid", scale=2.5),
        Routing(8, normalise=True, gating="sigmoid", groups=6, groups_used=2),
        Routing(3, normalise=False, groups=10, groups_used=4),
    ],
    ids=lambda routing: f"{routing.gating}-{routing.groups}-{routing.normalise}",
)
def test_route_is_the_references(monkeypatch, isa, routing, biased):
    ops = backend(monkeypatch, isa)
    rng = np.random.default_rng(6)
    logits = rng.standard_normal((50, 60), np.float32)
    logits[3, 7:20] = logits[3, 40]  # equals: the lower id first
    bias = rng.standard_normal(60, np.float32) if biased else None
    routing = replace(routing, selection_bias=bias)
    ids, weights = ops.route(logits, routing)
    theirs = REFERENCE.route(logits, routing)
    np.testing.assert_array_equal(ids, theirs[0])
    np.testing.assert_allclose(weights, theirs[1], rtol=2e-6)


@each_isa
def test_route_of_nan_chooses_different_experts(monkeypatch, isa):
    ops = backend(monkeypatch, isa)
    for logits in (np.full((1, 6), np.nan), [[0, np.nan, 1, 2, 3, 4]], [[np.inf] * 6]):
        ids, weights = ops.route(np.array(logits, np.float32), Routing(3, normalise=True))
        assert len(set(ids[0])) == 3
        assert not np.isfinite(weights).any()


def test_unknown_instruction_set_names_those_that_run(monkeypatch):
    with pytest.raises(UnsupportedModelError, match=r"'sse9'.*available are: .*scalar"):
        backend(monkeypatch, "sse9")


@pytest.mark.parametrize("threads", [-1, 100_000])
def test_impossible_threads(threads):
    with pytest.raises(UnsupportedModelError, match="threads"):
        CpuBackend(threads)


def test_idle_threads_use_no_time():
    context = _native.Context(4)
    a = np.ones((200, 4096), np.float32)
    context.add(a, a, np.empty_like(a))
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05


def test_a_forked_child_can_compute():
    code = (
        "import os, numpy as np; from moestream import _native\n"
        "c = _native.Context(4); a = np.ones((100, 4096), np.float32); c.add(a, a, a.copy())\n"
        "out = np.empty_like(a); pid = os.fork()\n"
        "if pid == 0: c.add(a, a, out); os._exit(0 if (out == 2).all() else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
