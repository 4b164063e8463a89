"""What can be chosen of streaming, and what is chosen where that is left open."""

import os
import shutil

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import GOLDEN, logits, open_engine, options_of, plan

from moestream.choices import HALF_LIFE
from moestream.engine.engine import Engine
from moestream.errors import BudgetError
from moestream.gguf import GGUFFile
from moestream.streaming import read_method
from moestream.streaming.build import policy_factory
from moestream.streaming.division import size_classes
from moestream.streaming.options import StreamingOptions
from moestream.streaming.page_cache import drop_pages
from moestream.streaming.store import ExpertStore


def test_no_dense_weight_is_left_to_the_page_cache():
    with open_engine("qwen3moe", "cpu") as engine:
        for name in ("blk.0.attn_norm.weight", "output_norm.weight"):
            mapped = engine.file.tensor(name)
            held = engine.backend.vector(mapped)
            assert not np.shares_memory(held, mapped.data)
            np.testing.assert_array_equal(held.view(np.uint8), mapped.data)


def test_choices_are_told():
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 16), options_of(io="pread", prefetch=False))
        choices = engine.streaming.choices
        assert (choices.io, choices.pin, choices.prefetch_layers) == ("pread", "copy", 0)


@pytest.mark.parametrize(
    ("pin", "experts_bytes", "io"),
    [("auto", 1 << 30, "madvise"), ("copy", 1 << 30, "pread"), ("mlock", 1 << 14, "madvise")],
)
def test_auto_reads_into_the_page_cache_what_fits_there(pin, experts_bytes, io):
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(experts_bytes), options_of(pin=pin))
        assert engine.streaming.choices.io == io


def test_auto_reads_around_the_page_cache_or_through_it_what_does_not_fit():
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 14), options_of())
        assert engine.streaming.choices.io in ("direct", "pread")
        assert engine.streaming.choices.pin == "copy"


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the system does not tell what is cached")
@pytest.mark.parametrize(("cached", "io"), [(False, "direct"), (True, "pread")])
def test_a_fast_read_is_not_taken_for_the_page_cache(tmp_path, monkeypatch, cached, io):
    path = tmp_path / "model.gguf"
    shutil.copy(GOLDEN / "qwen3moe.gguf", path)
    speeds = {"direct": 1.0, "pread": 10.0}
    monkeypatch.setattr(read_method, "read_speed", lambda store, method, keys: speeds[method])
    with GGUFFile.open(path) as file, ExpertStore(file) as store:
        if cached:
            path.read_bytes()
        else:
            drop_pages([path])
        assert read_method.choose_method(store, 0) == io


def test_a_dense_model_is_left_as_it_is():
    with open_engine("llama") as engine:
        engine.stream(plan(0), options_of())
        assert engine.streaming is None


@pytest.mark.parametrize(
    ("budget", "options", "streams"),
    [
        (None, None, False),
        ("auto", None, False),
        ("100%", None, False),
        ("100%", options_of(), True),
        ("1M", None, True),
    ],
)
def test_what_fits_is_streamed_only_if_asked_for(budget, options, streams):
    path = GOLDEN / "qwen3moe.gguf"
    with Engine.open(path, backend="reference", budget=budget, streaming=options) as engine:
        assert (engine.streaming is not None) == streams
        assert (engine.plan is not None) == (budget is not None)


@pytest.mark.parametrize("policy", ["decay", "blend"])
def test_a_half_life_reaches_the_policies_that_have_one(policy):
    def doubling(options: StreamingOptions) -> float:
        return policy_factory(options)([1, 1], 2)._doubling

    assert doubling(options_of(policy=policy, half_life=7.0)) == 7
    assert doubling(options_of(policy=policy)) == HALF_LIFE


def test_a_split_below_one_is_not_for_the_mapped_file():
    with open_engine("qwen3moe") as engine, pytest.raises(BudgetError, match="use pread or direct"):
        engine.stream(plan(1 << 16), options_of(io="madvise", split=0.5))


@pytest.mark.parametrize("split", [0.0, 1.5, "most"])
def test_a_split_that_cannot_be_is_refused(split):
    with (
        open_engine("qwen3moe") as engine,
        pytest.raises(BudgetError, match=r"expected auto, or a number of 0\.01 to 1"),
    ):
        engine.stream(plan(1 << 16), options_of(split=split))


def test_a_split_finds_a_part_of_more_experts_in_memory():
    found = []
    for split in (1.0, 0.3):
        with open_engine("qwen3moe") as engine:
            engine.stream(plan(190_000), options_of(io="direct", split=split, prefetch=False))
            assert set(engine.streaming.choices.split.values()) == ({split} if split < 1 else set())
            logits(engine)
            counts = engine.streaming.stats().decode
            found.append((counts.hits, counts.demand_bytes))
    (hits, read), (more_hits, more_read) = found
    assert more_hits > hits
    assert more_read != read


@pytest.mark.parametrize(
    "choice",
    [{"policy": "best"}, {"layer_budget": "best"}, {"io": "telepathy"}, {"split": 2}],
)
def test_unknown_choices_name_the_known(choice):
    with pytest.raises(BudgetError, match="expected "):
        StreamingOptions(**choice)


def test_experts_of_two_sizes_do_not_share_slots():
    assert size_classes({0: 1530, 1: 1340, 2: 1339, 3: 1530, 4: 1500}) == {
        1530: [0, 3, 4],
        1340: [1, 2],
    }
