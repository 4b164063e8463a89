"""Files that mix types: another a layer, and another a matrix within a layer."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from command_line import run

from golden.files import CONTEXT, write_model
from golden.models import WIDE, GoldenModel
from moestream.engine.engine import Engine
from moestream.gguf import GGUFFile
from moestream.streaming.layout import ALIGNMENT, slot_layout
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions
from moestream.streaming.store import ExpertStore

TYPES = ("IQ2_XXS", "IQ3_S", "Q4_K", "TQ2_0", "IQ1_M")
"""Of eight matrices a layer: gate, up and down of the layers are all of different types."""
MODEL = GoldenModel("mixed", "llama", 5, TYPES, layers=3, experts=4, **WIDE)
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(MODEL, tmp_path_factory.mktemp("mixed"))


def open_engine(path: Path) -> Engine:
    return Engine.open(path, backend="cpu", context_length=CONTEXT)


def test_slots_are_of_the_size_that_their_layer_needs(mixed: Path) -> None:
    with GGUFFile.open(mixed) as file, ExpertStore(file) as store:
        layout = slot_layout(store, [0])
        needed = {
            layer: sum(tensor.n_bytes for tensor in experts.tensors) // 4
            for layer, experts in store.layers.items()
        }
    assert len(set(needed.values())) > 1
    for layer, slot_bytes in layout.slot_bytes.items():
        assert needed[layer] <= slot_bytes <= needed[layer] + 3 * 2 * ALIGNMENT


@pytest.mark.parametrize("experts_bytes", [1 << 18, 1 << 19, 1 << 30])
@pytest.mark.parametrize("io", ["pread", "madvise"])
def test_streamed_logits_are_the_resident_ones(mixed: Path, experts_bytes: int, io: str) -> None:
    with open_engine(mixed) as engine:
        expected = engine.session().forward(TOKENS)
    with open_engine(mixed) as engine:
        plan = MemoryPlan(1 << 30, 0, 1 << 20, 0, experts_bytes, 1, 1)
        engine.stream(plan, StreamingOptions(io=io))
        session = engine.session()
        got = [session.forward([token])[0] for token in TOKENS]
    np.testing.assert_array_equal(np.stack(got), expected)


def test_inspect_lists_the_mix(mixed: Path) -> None:
    done = run("inspect", str(mixed), "--json")
    assert done.returncode == 0, done.stderr
    listed = {total["type"]: total["tensors"] for total in json.loads(done.stdout)["quantisation"]}
    assert set(TYPES) <= listed.keys()
    assert sum(listed[type] for type in TYPES) == 2 + 3 * 7
