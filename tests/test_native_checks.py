"""What native code refuses: a Python exception, never a crash."""

import gc

import numpy as np
import pytest
from gguf import GGMLQuantizationType as QType
from native_blocks import experts_of, random_blocks

from moestream import _native

RNG = np.random.default_rng(0)
CONTEXT = _native.Context(2)
F32, Q4_1 = int(QType.F32), int(QType.Q4_1)


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def matrix(rows: int = 4, columns: int = 32) -> _native.Matrix:
    return CONTEXT.matrix(random_blocks(RNG, QType.Q4_1, rows, columns), Q4_1)


def linear(x, weight, out, bias=None):
    CONTEXT.linear(x, [weight], [out], [bias])


@pytest.mark.parametrize(
    ("x", "out", "bias"),
    [
        (floats(2, 33), floats(2, 4), None),
        (floats(2, 32), floats(3, 4), None),
        (floats(2, 32), floats(2, 5), None),
        (floats(32), floats(1, 4), None),
        (floats(2, 32), floats(2, 4), floats(5)),
    ],
)
def test_linear_shapes(x, out, bias):
    with pytest.raises(ValueError, match="expected"):
        linear(x, matrix(), out, bias)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 32)),
        np.zeros((2, 64), np.float32)[:, ::2],
        np.zeros((32, 2), np.float32).T,
        [[0.0] * 32] * 2,
        None,
    ],
)
def test_linear_wants_contiguous_float32(x):
    with pytest.raises(TypeError):
        linear(x, matrix(), floats(2, 4))


def test_read_only_output():
    out = floats(2, 4)
    out.flags.writeable = False
    with pytest.raises((TypeError, ValueError)):
        linear(floats(2, 32), matrix(), out)


def test_misaligned_floats():
    x = np.frombuffer(bytearray(2 * 32 * 4 + 1), np.uint8)[1:].view(np.float32).reshape(2, 32)
    with pytest.raises(ValueError, match="aligned"):
        linear(x, matrix(), floats(2, 4))


def test_linear_lists():
    with pytest.raises(ValueError, match="as many"):
        CONTEXT.linear(floats(1, 32), [matrix()], [], [])
    with pytest.raises(ValueError, match="1 to 8"):
        CONTEXT.linear(floats(1, 32), [], [], [])
    with pytest.raises((TypeError, ValueError)):
        CONTEXT.linear(floats(1, 32), [None], [floats(1, 4)], [None])


@pytest.mark.parametrize(
    ("x", "heads", "out", "said"),
    [
        ((2, 2, 32), [], (2, 2, 4), "a weight a head"),
        ((2, 2, 32), [(4, 32), None], (2, 2, 4), "None"),
        ((2, 2, 32), [(4, 32), (5, 32)], (2, 2, 4), "one shape"),
        ((2, 2, 64), [(4, 32), (4, 64)], (2, 2, 4), "one shape"),
        ((2, 3, 32), [(4, 32), (4, 32)], (2, 3, 4), "expected"),
        ((2, 2, 32), [(4, 32), (4, 32)], (2, 2, 5), "expected"),
        ((2, 2, 32), [(4, 32), (4, 32)], (1, 2, 4), "expected"),
    ],
)
def test_heads_linear_arguments(x, heads, out, said):
    weights = [None if shape is None else matrix(*shape) for shape in heads]
    with pytest.raises((TypeError, ValueError), match=said):
        CONTEXT.heads_linear(floats(*x), weights, floats(*out))


def test_no_tokens_is_no_work():
    linear(floats(0, 32), matrix(), floats(0, 4))


@pytest.mark.parametrize(
    ("data", "type", "message"),
    [
        (np.zeros((2, 21), np.uint8), Q4_1, "whole Q4_1 blocks"),
        (np.zeros((2, 0), np.uint8), Q4_1, "whole Q4_1 blocks"),
        (np.zeros((0, 20), np.uint8), Q4_1, "expected"),
        (np.zeros(20, np.uint8), Q4_1, "expected"),
        (np.zeros((2, 40), np.uint8)[:, ::2], Q4_1, "contiguous"),
        (np.zeros((2, 20), np.uint8)[::-1], Q4_1, "contiguous"),
        (np.zeros((2, 20), np.uint8), 999, "no native kernel"),
    ],
)
def test_matrix_bytes(data, type, message):
    with pytest.raises(ValueError, match=message):
        CONTEXT.matrix(data, type)


def test_rows_of_a_matrix_may_be_apart():
    wide = random_blocks(RNG, QType.Q4_1, 5, 64)
    x, together, apart = RNG.standard_normal((3, 32), np.float32), floats(3, 5), floats(3, 5)
    linear(x, CONTEXT.matrix(wide[:, :20], Q4_1), apart)
    linear(x, CONTEXT.matrix(wide[:, :20].copy(), Q4_1), together)
    np.testing.assert_array_equal(apart, together)


def test_matrix_of_another_instruction_set():
    weight = _native.Context(1, "scalar").matrix(np.zeros((4, 20), np.uint8), Q4_1)
    if CONTEXT.isa == "scalar":
        pytest.skip("there is only one")
    with pytest.raises(ValueError, match="another instruction set"):
        linear(floats(1, 32), weight, floats(1, 4))
    with pytest.raises(ValueError, match="another instruction set"):
        CONTEXT.embed(weight, np.zeros(1, np.int32), floats(1, 32))


@pytest.mark.parametrize("token", [-1, 4, 2**31 - 1])
def test_embedding_ids(token):
    with pytest.raises(ValueError, match="outside 0 to 3"):
        CONTEXT.embed(matrix(), np.array([token], np.int32), floats(1, 32))


def experts(parts=None) -> _native.Experts:
    gate, up, down = parts or experts_of(RNG, QType.Q4_1, QType.Q4_1, 3, 32, 64)
    return _native.Experts(gate, Q4_1, up, Q4_1, down, Q4_1)


def test_experts_that_do_not_fit_together():
    gate, up, down = experts_of(RNG, QType.Q4_1, QType.Q4_1, 3, 32, 64)
    for parts in ((gate, up[:2], down), (gate, up[:, :16], down), (gate, up, gate)):
        with pytest.raises(ValueError, match="do not make one network"):
            experts(parts)
    with pytest.raises(ValueError, match="strides"):
        experts((gate[::-1], up, down))


@pytest.mark.parametrize("bad", [-1, 3])
def test_expert_ids(bad):
    ids = np.array([[0, bad]], np.int32)
    with pytest.raises(ValueError, match="outside 0 to 2"):
        CONTEXT.moe_ffn(floats(1, 64), experts(), ids, floats(1, 2), floats(1, 64))
    with pytest.raises(ValueError, match="outside 0 to 2"):
        CONTEXT.run_experts(
            floats(1, 64), experts(), np.zeros((1, 2), np.int32), [bad], floats(1, 2, 64)
        )


def test_moe_shapes():
    ids = np.zeros((2, 2), np.int32)
    good = [floats(2, 64), experts(), ids, floats(2, 2), floats(2, 64)]
    CONTEXT.moe_ffn(*good)
    for index, bad in (
        (0, floats(2, 63)),
        (2, np.zeros((2, 0), np.int32)),
        (2, np.zeros((1, 2), np.int32)),
        (3, floats(2, 3)),
        (4, floats(1, 64)),
    ):
        arguments = list(good)
        arguments[index] = bad
        with pytest.raises(ValueError, match="expected"):
            CONTEXT.moe_ffn(*arguments)


def test_streamed_experts():
    with pytest.raises(ValueError, match="addresses"):
        experts().streamed(np.zeros((2, 3), np.uint64))
    absent = experts().streamed(np.zeros((3, 3), np.uint64))
    ids = np.zeros((1, 1), np.int32)
    with pytest.raises(ValueError, match="not in memory"):
        CONTEXT.moe_ffn(floats(1, 64), absent, ids, floats(1, 1), floats(1, 64))
    with pytest.raises(ValueError, match="not in memory"):
        CONTEXT.run_experts(floats(1, 64), absent, ids, [0], floats(1, 1, 64))
    with pytest.raises(ValueError, match="twice"):
        CONTEXT.run_experts(floats(1, 64), experts(), ids, [1, 1], floats(1, 1, 64))


def test_experts_keep_their_memory():
    parts = experts_of(RNG, QType.Q4_1, QType.Q4_1, 3, 32, 64)
    x, ids, weights = (
        RNG.standard_normal((4, 64), np.float32),
        np.ones((4, 1), np.int32),
        floats(4, 1) + 1,
    )
    kept, expected, got = experts([part.copy() for part in parts]), floats(4, 64), floats(4, 64)
    CONTEXT.moe_ffn(x, experts(parts), ids, weights, expected)
    gc.collect()
    CONTEXT.moe_ffn(x, kept, ids, weights, got)
    np.testing.assert_array_equal(got, expected)


def kv_pass(start=5, tokens=3, *, blocks=1, block_bytes=2 * 2 * 256 * 16 * 2):
    memory = np.zeros(max(blocks, 1) * block_bytes, np.uint8)
    addresses = np.arange(blocks, dtype=np.uint64) * block_bytes + memory.ctypes.data
    made = _native.KVPass([(addresses, start, tokens)], block_bytes)
    KEPT.append(memory)
    return made


KEPT = []
F32, F16, Q8_0 = 0, 1, 8
VALUES_AT = 2 * 256 * 16 * 2


def test_attention_arguments():
    good = [
        floats(3, 4, 16),
        floats(3, 2, 16),
        floats(3, 2, 16),
        kv_pass(),
        _native.KVPlace(0, VALUES_AT, F16, F16),
        1.0,
        0,
        None,
        floats(3, 64),
    ]
    CONTEXT.attention(*good)
    for index, bad in (
        (0, floats(3, 5, 16)),
        (0, floats(3, 4, 8)),
        (0, floats(2, 4, 16)),
        (1, floats(3, 1, 8)),
        (1, floats(3, 8, 16)),
        (2, floats(2, 2, 16)),
        (3, kv_pass(tokens=2)),
        (3, kv_pass(block_bytes=2 * VALUES_AT - 1)),
        (4, _native.KVPlace(0, VALUES_AT + 1, F16, F16)),
        (4, _native.KVPlace(-1, VALUES_AT, F16, F16)),
        (4, _native.KVPlace(0, -1, F16, F16)),
        (4, _native.KVPlace(0, VALUES_AT, F16, F32)),
        (4, _native.KVPlace(0, VALUES_AT, 2, F16)),
        (6, -1),
        (7, floats(3)),
        (8, floats(3, 63)),
    ):
        arguments = list(good)
        arguments[index] = bad
        with pytest.raises((ValueError, TypeError)):
            CONTEXT.attention(*arguments)


@pytest.mark.parametrize(("start", "tokens"), [(254, 3), (-1, 2), (0, 0), (2**62, 1), (0, 2**62)])
def test_sequences_that_do_not_fit_in_their_blocks(start: int, tokens: int):
    with pytest.raises(ValueError, match="do not fit in a cache of 256"):
        kv_pass(start, tokens)


def test_heads_that_are_no_whole_blocks():
    q, place = floats(1, 1, 48), _native.KVPlace(0, 0, Q8_0, Q8_0)
    with pytest.raises(ValueError, match="heads of 48 are not whole blocks of 32"):
        CONTEXT.attention(q, q, q, kv_pass(0, 1), place, 1.0, 0, None, floats(1, 48))


def test_values_cannot_be_more_than_their_keys():
    q, place = floats(1, 1, 8), _native.KVPlace(0, 0, F16, F16)
    CONTEXT.attention(q, q, None, kv_pass(0, 1), place, 1.0, 0, None, floats(1, 6))
    with pytest.raises(ValueError, match="values of 9 are no part of keys of 8"):
        CONTEXT.attention(q, q, None, kv_pass(0, 1), place, 1.0, 0, None, floats(1, 9))


def test_elementwise_arguments():
    a = floats(2, 3)

    def glu(gate, up, out):
        CONTEXT.glu(gate, up, "gelu", out)

    for call in (CONTEXT.add, glu):
        with pytest.raises(ValueError, match="expected"):
            call(a, floats(3, 2), a)
        with pytest.raises(ValueError, match="expected"):
            call(a, a, floats(6))
    with pytest.raises(ValueError, match="last axis"):
        CONTEXT.rms_norm(a, floats(2), 1e-5, a)
    with pytest.raises(ValueError, match="turns"):
        CONTEXT.rope(floats(1, 2, 8), floats(1, 5), floats(1, 5), True, floats(1, 2, 8))
    with pytest.raises(ValueError, match="activation tanh is not known"):
        CONTEXT.glu(a, a, "tanh", a)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ids": np.zeros((1, 7), np.int32), "weights": floats(1, 7)}, "cannot choose 7 of 6"),
        ({"groups": 3}, "cannot choose 3 of 2"),
        ({"groups": 4}, "1 of 4 groups of 6"),
        ({"groups": 2, "groups_used": 3}, "3 of 2 groups"),
        ({"groups": 0}, "1 of 0 groups"),
        ({"gating": "none"}, "gating none is not known"),
        ({"bias": floats(5)}, r"bias has shape \(5\), expected \(6\)"),
    ],
)
def test_route_arguments(changed, said):
    good = {
        "logits": floats(1, 6),
        "normalise": True,
        "gating": "softmax",
        "scale": 1.0,
        "groups": 1,
        "groups_used": 1,
        "bias": None,
        "ids": np.zeros((1, 3), np.int32),
        "weights": floats(1, 3),
    }
    CONTEXT.route(**good)
    with pytest.raises(ValueError, match=said):
        CONTEXT.route(**good | changed)


def test_biases_of_experts_go_together():
    parts = experts_of(RNG, QType.Q4_1, QType.Q4_1, 3, 32, 64)
    types = [parts[0], QType.Q4_1, parts[1], QType.Q4_1, parts[2], QType.Q4_1, "silu"]
    _native.Experts(*types, floats(3, 32), floats(3, 32), floats(3, 64))
    with pytest.raises(ValueError, match="all or none"):
        _native.Experts(*types, floats(3, 32))
    with pytest.raises(ValueError, match=r"down_bias has shape \(3, 32\), expected \(3, 64\)"):
        _native.Experts(*types, floats(3, 32), floats(3, 32), floats(3, 32))


@pytest.mark.parametrize(("threads", "isa"), [(0, None), (2000, None), (1, "none")])
def test_context_arguments(threads, isa):
    with pytest.raises(ValueError, match=r"expected 1 to 1024|available are"):
        _native.Context(threads, isa)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data": np.zeros(80, np.uint8)}, "data must have shape"),
        ({"type": 999}, "type"),
        ({"bits": 5}, "no layout for MLX in 5 bits"),
        ({"codes": np.zeros(63, np.uint8)}, "codes has 63 bytes, expected 64"),
        ({"scales": np.zeros(8, np.uint8)}, "scales has 8 bytes, expected 16"),
        ({"biases": np.zeros(0, np.uint8)}, "biases has 0 bytes, expected 16"),
        ({"threads": 0}, "threads must lie in"),
    ],
)
def test_layouts_for_mlx(changed, said):
    arguments = {
        "data": random_blocks(RNG, QType.Q4_1, 4, 32),
        "type": Q4_1,
        "bits": 4,
        "codes": np.zeros(64, np.uint8),
        "scales": np.zeros(16, np.uint8),
        "biases": np.zeros(16, np.uint8),
        "threads": 1,
    }
    _native.mlx_encode(**arguments)
    with pytest.raises((TypeError, ValueError), match=said):
        _native.mlx_encode(**arguments | changed)
