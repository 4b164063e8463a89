"""Every architecture gives the same bits with its experts streamed, and in any chunks."""

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import (
    GOLDEN,
    NAMES,
    always_guess,
    logits,
    open_engine,
    options_of,
    plan,
    resident_logits,
    sample_tokens,
)

from golden.files import is_f32
from golden.models import MODELS
from moestream.gguf import GGUFFile
from moestream.layers.attention import Attention
from moestream.layers.moe import MoE
from moestream.streaming.store import ExpertStore

OTHERS = [m.name for m in MODELS if m.experts and is_f32(m) and m.name not in NAMES]
UNGATED = ("nemotron_h_moe", "nemotron_h_moe-q8_0")
"""Experts of two matrices."""


@pytest.mark.parametrize("name", [*OTHERS, UNGATED[1]])
def test_streaming_with_the_least_memory_changes_no_bit(name):
    for experts_bytes, io in ((0, "direct"), (1 << 17, "madvise")):
        with open_engine(name, "cpu") as engine:
            engine.stream(plan(experts_bytes), options_of(io=io))
            always_guess(engine)
            np.testing.assert_array_equal(logits(engine), resident_logits(name, "cpu"))


@pytest.mark.parametrize("name", UNGATED)
@pytest.mark.parametrize("split", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_experts_of_two_matrices_are_read_in_parts(name, split, backend):
    with open_engine(name, backend) as engine:
        engine.stream(plan(1 << 14), options_of(io="direct", split=split))
        always_guess(engine)
        np.testing.assert_array_equal(logits(engine), resident_logits(name, backend))


@pytest.mark.parametrize("name", OTHERS)
def test_chunks_change_no_bit(name):
    with open_engine(name, "cpu") as engine:
        whole, *cut = (
            engine.session().forward(sample_tokens(), chunk_tokens=size) for size in (64, 1, 7, 24)
        )
    for chunked in cut:
        np.testing.assert_array_equal(chunked, whole)


def test_all_rows_of_a_long_pass_attend_before_an_expert_is_asked_for(monkeypatch):
    """So that there is time to read the first layer's."""
    order = []
    for part, letter in ((Attention, "a"), (MoE, "m")):

        def spied(self, *args, run=part.__call__, letter=letter, **more):
            order.append(letter)
            return run(self, *args, **more)

        monkeypatch.setattr(part, "__call__", spied)
    with open_engine("qwen3moe", "cpu") as engine:
        engine.stream(plan(1 << 24), options_of(io="pread"))
        engine.session().forward(sample_tokens()[:28], chunk_tokens=7)
        assert "".join(order) == "aaaammmm" * engine.config.num_layers


def test_a_matrix_that_stands_for_two_is_counted_once():
    with GGUFFile.open(GOLDEN / "nemotron_h_moe.gguf") as file, ExpertStore(file) as store:
        layer = store.layers[1]
        matrix = 16 * 32 * 4  # of an expert: F32
        assert layer.part_bytes == (matrix, matrix, matrix)
        assert layer.expert_bytes == 2 * matrix
