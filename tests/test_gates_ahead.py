"""Gates ahead: what they choose is what a layer's own router would, of a stream that is moved."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import quantize

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import open_engine, sample_tokens

from moestream import _native
from moestream.layers.gates_ahead import GatesAhead
from moestream.layers.moe import MoE


def moes_of(engine) -> dict[int, MoE]:
    layers = enumerate(engine.model.layers)
    return {index: layer.ffn for index, layer in layers if isinstance(layer.ffn, MoE)}


def streams(engine, tokens: int) -> dict[int, np.ndarray]:
    found = {}
    engine.session().forward(
        sample_tokens()[:tokens], on_route=lambda event: found.update({event.layer: event.x})
    )
    return found


@pytest.mark.parametrize("name", ["qwen3moe", "deepseek2-v3", "gpt-oss", "gemma4", "smallthinker"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_before_anything_was_seen_they_are_the_layers_own(name: str, backend: str) -> None:
    with open_engine(name, backend) as engine:
        moes = moes_of(engine)
        first, *others = sorted(moes)
        x = streams(engine, 3)[first]
        gates = GatesAhead(moes)
        for row in x[:, None]:
            expected = [moes[layer].norm_and_route(row)[0][0].tolist() for layer in others]
            assert gates(first, row, len(others)) == expected != []


def test_of_several_rows_each_expert_comes_once_and_first_choices_first() -> None:
    with open_engine("qwen3moe", "cpu") as engine:
        moes = moes_of(engine)
        first, second = sorted(moes)[:2]
        x = streams(engine, 8)[first]
        ids = moes[second].norm_and_route(x)[0]
        expected = list(dict.fromkeys([*ids[:, 0].tolist(), *ids[:, 1].tolist()]))
        assert len(expected) < ids.size
        assert GatesAhead(moes)(first, x, 1) == [expected]


def test_the_stream_is_moved_by_what_its_means_differ_by() -> None:
    with open_engine("qwen3moe", "cpu") as engine:
        moes = moes_of(engine)
        first, second = sorted(moes)[:2]
        x = streams(engine, 8)[first]
        gates, moved = GatesAhead(moes), np.float32(3) * np.roll(x, 1, axis=1)[:1]
        for row in range(4):  # of a stream that moves alike for all tokens
            gates(first, x[row : row + 1], 1)
            gates.note(second, x[row : row + 1] + moved)
        for row in range(4, 8):
            here = x[row : row + 1]
            there = here + moved
            mean = x[: row + 1].mean(axis=0) - x[:4].mean(axis=0)  # it has seen one more here
            expected = moes[second].norm_and_route(there - mean)[0]
            unmoved = moes[second].norm_and_route(here)[0]
            assert gates(first, here, 1) == expected.tolist() != unmoved.tolist()


@pytest.mark.parametrize(
    ("columns", "kind", "chosen"),
    [
        (64, GGMLQuantizationType.F32, 0),
        (64, GGMLQuantizationType.F16, 0),
        (48, GGMLQuantizationType.F32, 1),
        (64, GGMLQuantizationType.Q8_0, 0),
    ],
)
def test_a_router_of_floats_is_copied_to_int8(
    columns: int, kind: GGMLQuantizationType, chosen: int
) -> None:
    """The second row gives an eighth of a step of int8 more, which a copy does not tell."""
    row = np.resize(np.array([127, 64, 80, 96], np.float32), columns) / 64
    rows = np.stack([row, row])
    rows[1, 1] += 1 / 512
    data = quantize(rows, kind).view(np.uint8).reshape(2, -1)
    context = _native.Context(1, None)
    router = context.matrix(data, int(kind), 1.0)
    ones = np.ones(columns, np.float32)
    gate = _native.Gate(ones, 1e-6, router, None, None, False, "softmax", 1.0, 1, 1, 1)
    gates = _native.Gates(context, [gate, gate])
    assert gates.choose(0, ones[None], 1) == [[chosen]]
