"""Gates ahead: what they choose is what a layer's own router would, of a stream that is moved."""

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import open_engine, sample_tokens

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
