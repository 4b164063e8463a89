"""Native products of every type and instruction set, against gguf's decoder and each other."""

from itertools import product as product_of

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_blocks import (
    ISAS,
    TYPES,
    columns_of,
    experts_of,
    linear,
    product,
    random_blocks,
    rounding_bound,
)

from moestream import _native
from moestream.quants import GGMLQuantizationType as QType
from moestream.quants import dequantize, row_bytes

each_type = pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
each_isa = pytest.mark.parametrize("isa", ISAS)
QUANTISED = [type for type in TYPES if type not in (QType.F32, QType.F16, QType.BF16)]
SCALAR = _native.Context(1, "scalar")


def test_all_types_of_the_design_have_kernels():
    names = (
        "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 "
        "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S TQ1_0 TQ2_0 "
        "NVFP4 Q1_0 Q2_0"
    )
    assert {type.name for type in TYPES} == set(names.split())


@each_type
def test_product_is_within_the_rounding_of_inputs(type):
    contexts = [_native.Context(2, isa) for isa in ISAS]
    for tokens, rows in product_of((1, 2, 3, 4, 5, 6, 7, 8, 13, 70), (1, 7, 8, 9, 16, 37)):
        rng = np.random.default_rng(tokens * 100 + rows)
        blocks = random_blocks(rng, type, rows, columns_of(type))
        x = rng.standard_normal((tokens, columns_of(type)), np.float32)
        exact, bound = product(x, blocks, type), rounding_bound(x, blocks, type)
        for context in contexts:
            apart = np.abs(linear(context, x, blocks, type) - exact)
            assert (apart <= bound).all(), (tokens, rows, context.isa)


@pytest.mark.parametrize("type", QUANTISED, ids=lambda type: type.name)
def test_the_largest_sums_saturate_nowhere(type):
    """All codes at an end of their range, all inputs at theirs, each of the sign that adds up."""
    columns = columns_of(type, 2)
    contexts = [_native.Context(1, isa) for isa in ISAS]
    for fill in (0x00, 0xFF, 0x7F, 0x80, 0x55, 0xAA, 0x0F, 0xF0):
        blocks = random_blocks(np.random.default_rng(1), type, 21, columns, fill=fill)
        adding = np.where(dequantize(blocks[:1], type) < 0, -1, 1).astype(np.float32)
        for row, tokens in product_of((np.ones_like(adding), adding, -adding), (1, 4, 7)):
            x = np.tile(row, (tokens, 1))
            expected = linear(SCALAR, x, blocks, type)
            for context in contexts:
                found = linear(context, x, blocks, type)
                np.testing.assert_array_equal(found, expected, err_msg=f"{context.isa} {fill}")


@each_type
@pytest.mark.parametrize("tokens", [1, 3, 4, 11])
def test_instruction_sets_agree_bit_for_bit(type, tokens):
    rng = np.random.default_rng(tokens)
    blocks = random_blocks(rng, type, 21, columns_of(type, 4))
    x = (rng.standard_normal((tokens, columns_of(type, 4))) * 3).astype(np.float32)
    expected = linear(SCALAR, x, blocks, type)
    for isa in ISAS:
        np.testing.assert_array_equal(linear(_native.Context(1, isa), x, blocks, type), expected)


@each_type
def test_a_token_does_not_depend_on_the_others_nor_on_threads(type):
    rng = np.random.default_rng(5)
    blocks = random_blocks(rng, type, 150, columns_of(type))
    x = rng.standard_normal((9, columns_of(type)), np.float32)
    for isa in ISAS:
        together = linear(_native.Context(1, isa), x, blocks, type)
        for threads in (2, 3, 8):
            context = _native.Context(threads, isa)
            np.testing.assert_array_equal(linear(context, x, blocks, type), together, isa)
            alone = [linear(context, x[t : t + 1], blocks, type)[0] for t in range(len(x))]
            np.testing.assert_array_equal(alone, together, isa)


@each_type
@pytest.mark.parametrize(("tokens", "rows"), [(1, 5), (3, 40)])
def test_each_head_has_its_own_weights(type, tokens, rows):
    rng = np.random.default_rng(7)
    heads = [random_blocks(rng, type, rows, columns_of(type)) for _ in range(3)]
    x = rng.standard_normal((tokens, len(heads), columns_of(type)), np.float32)
    apart = [
        linear(SCALAR, np.ascontiguousarray(x[:, i]), head, type) for i, head in enumerate(heads)
    ]
    for isa, threads in product_of(ISAS, (1, 4)):
        context = _native.Context(threads, isa)
        out = np.full((tokens, len(heads), rows), np.nan, np.float32)
        context.heads_linear(x, [context.matrix(head, int(type)) for head in heads], out)
        np.testing.assert_array_equal(out, np.stack(apart, axis=1), isa)


@each_type
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 6))
def test_any_bytes_give_what_the_scalar_kernel_gives(type, seed, tokens):
    rng = np.random.default_rng(seed)
    columns = columns_of(type, 2)
    blocks = rng.integers(0, 256, (11, row_bytes(type, columns)), dtype=np.uint8)
    x = rng.standard_normal((tokens, columns), np.float32)
    got = linear(SCALAR, x, blocks, type)
    for isa in ISAS:
        np.testing.assert_array_equal(linear(_native.Context(1, isa), x, blocks, type), got)
    with np.errstate(all="ignore"):
        exact, bound = product(x, blocks, type), rounding_bound(x, blocks, type)
        largest = np.abs(x).astype(np.float64) @ np.abs(dequantize(blocks, type)).T
    # Scales may be infinite or NaN, and sums of large ones overflow float32.
    sound = largest < 1e30
    assert (np.abs(got[sound] - exact[sound]) <= bound[sound]).all()


@each_type
@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-20, 1e15])
def test_inputs_of_any_size(type, scale):
    rng = np.random.default_rng(3)
    blocks = random_blocks(rng, type, 9, columns_of(type))
    x = (rng.standard_normal((5, columns_of(type))) * scale).astype(np.float32)
    # Blocks below 1e-30 are taken for zeros.
    exact, bound = product(x, blocks, type), rounding_bound(x, blocks, type) + 1e-25
    for isa in ISAS:
        got = linear(_native.Context(1, isa), x, blocks, type)
        assert (np.abs(got - exact) <= bound).all(), isa


@each_type
@pytest.mark.parametrize("tokens", [1, 6])
def test_bad_input_spoils_its_own_token_alone(type, tokens):
    rng = np.random.default_rng(4)
    blocks = random_blocks(rng, type, 9, columns_of(type))
    x = rng.standard_normal((tokens, columns_of(type)), np.float32)
    for context in (_native.Context(1, isa) for isa in ISAS):
        clean = linear(context, x, blocks, type)
        for bad in (np.nan, np.inf, -np.inf):
            spoilt = x.copy()
            spoilt[0, 5] = bad
            got = linear(context, spoilt, blocks, type)
            assert not np.isfinite(got[0]).any(), context.isa
            np.testing.assert_array_equal(got[1:], clean[1:], context.isa)


@each_type
def test_embedding_rows_are_those_of_gguf(type):
    rng = np.random.default_rng(6)
    blocks = random_blocks(rng, type, 19, columns_of(type))
    rows = np.array([18, 0, 7, 8, 18], np.int32)
    expected = dequantize(blocks, type)[rows]
    for context in (_native.Context(2, isa) for isa in ISAS):
        out = np.empty((len(rows), columns_of(type)), np.float32)
        context.embed(context.matrix(blocks, int(type)), rows, out)
        np.testing.assert_array_equal(out, expected, context.isa)


@each_type
def test_rows_are_looked_up_where_they_lie(type):
    rng = np.random.default_rng(8)
    first, later = (random_blocks(rng, type, 19, columns_of(type)) for _ in range(2))
    rows = np.array([18, 0, 7, 8, 18], np.int32)
    expected = dequantize(later, type)[rows]
    for context in (_native.Context(2, isa) for isa in ISAS):
        blocks = first.copy()
        table = context.mapped_matrix(blocks, int(type))
        blocks[:] = later
        del blocks
        out = np.empty((len(rows), columns_of(type)), np.float32)
        context.embed(table, rows, out)
        np.testing.assert_array_equal(out, expected, context.isa)


@each_isa
def test_several_products_and_biases_at_once(isa):
    rng = np.random.default_rng(7)
    context = _native.Context(3, isa)
    types = [QType.Q4_K, QType.F32, QType.Q8_0]
    blocks = [
        random_blocks(rng, type, rows, 256) for type, rows in zip(types, (40, 3, 8), strict=True)
    ]
    x = rng.standard_normal((5, 256), np.float32)
    bias = rng.standard_normal(3).astype(np.float32)
    outs = [np.empty((5, len(b)), np.float32) for b in blocks]
    matrices = [context.matrix(b, int(t)) for b, t in zip(blocks, types, strict=True)]
    context.linear(x, matrices, outs, [None, bias, None])
    for out, b, type, extra in zip(outs, blocks, types, (0, bias, 0), strict=True):
        np.testing.assert_array_equal(out, linear(context, x, b, type) + np.float32(extra))


def moe(context, x, parts, types, ids, weights):
    gate, up, down = parts
    experts = _native.Experts(gate, types[0], up, types[0], down, types[1])
    out = np.empty_like(x)
    context.moe_ffn(x, experts, ids, weights, out)
    return out


@pytest.mark.parametrize("type", QUANTISED, ids=lambda type: type.name)
@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_experts_are_products_in_slot_order(type, tokens):
    rng = np.random.default_rng(tokens)
    width, hidden, count, k = 256, 256, 5, 3
    parts = experts_of(rng, type, QType.Q4_K, count, width, hidden)
    x = rng.standard_normal((tokens, hidden), np.float32)
    ids = np.array([rng.permutation(count)[:k] for _ in range(tokens)], np.int32)
    weights = rng.random((tokens, k), np.float32)
    for context in (_native.Context(2, isa) for isa in ISAS):
        got = moe(context, x, parts, (int(type), int(QType.Q4_K)), ids, weights)
        expected = np.zeros_like(x)
        for token, slot in np.ndindex(tokens, k):
            expert, row = ids[token, slot], x[token : token + 1]
            gate, up = (linear(context, row, parts[i][expert], type) for i in range(2))
            inner = np.empty_like(gate)
            context.glu(gate, up, "silu", inner)
            down = linear(context, inner, parts[2][expert], QType.Q4_K)[0]
            expected[token] += down * weights[token, slot]
        np.testing.assert_array_equal(got, expected, context.isa)


@each_isa
@pytest.mark.parametrize("tokens", [1, 29])
def test_experts_in_any_order_from_any_address_by_any_threads(isa, tokens):
    rng = np.random.default_rng(8)
    types = (QType.Q4_1, QType.Q8_0)
    parts = experts_of(rng, *types, 6, 48 + 16, 64)
    x = rng.standard_normal((tokens, 64), np.float32)
    ids = np.array([rng.permutation(6)[:4] for _ in range(tokens)], np.int32)
    weights = rng.random((tokens, 4), np.float32)
    whole = moe(_native.Context(1, isa), x, parts, types, ids, weights)
    # Each matrix copied to an odd address of its own.
    copies = [
        [np.frombuffer(b"x" + part[e].tobytes(), np.uint8)[1:] for part in parts] for e in range(6)
    ]
    addresses = np.array([[copy.ctypes.data for copy in row] for row in copies], np.uint64)
    mapped = _native.Experts(parts[0], types[0], parts[1], types[0], parts[2], types[1])
    for threads in (1, 2, 3, 8):
        context = _native.Context(threads, isa)
        np.testing.assert_array_equal(moe(context, x, parts, types, ids, weights), whole)
        outputs = np.full((tokens, 4, 64), np.nan, np.float32)
        for batch in ([5, 0], [3], [1, 2, 4]):
            context.run_experts(x, mapped.streamed(addresses), ids, batch, outputs)
        out = np.empty_like(x)
        context.sum_slots(outputs, weights, out)
        np.testing.assert_array_equal(out, whole)
