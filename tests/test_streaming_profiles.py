"""A profile's experts are in memory before the first token."""

import errno
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import count, made_up, open_engine, options_of, plan, sample_tokens

from moestream.choices import READ_METHODS
from moestream.errors import ProfileError, StorageError
from moestream.layers.moe import ByLayer
from moestream.streaming.reader import ExpertReader
from moestream.traces.recording import ProfileRecorder


@pytest.mark.parametrize("io", READ_METHODS)
def test_a_profile_is_in_memory_before_the_first_token(io):
    with open_engine("qwen3moe") as engine:
        profile, told = made_up(engine), []
        engine.on_warmed = lambda *so_far: told.append(so_far)
        engine.stream(plan(1 << 18), options_of(io=io), profile)
        residency, warming = engine.streaming.residency, engine.streaming.stats().warming
        size = next(iter(profile.fingerprint.expert_bytes.values()))
        assert warming.bytes == warming.experts * size
        assert warming.experts > 2
        assert warming.bytes <= 1 << 18
        assert warming.read_bytes <= warming.bytes
        hot = np.argsort(-profile.key_rates(), kind="stable")[: warming.experts // 2]
        for layer in profile.layers:
            keys = [int(key) for key in hot if key // residency.num_experts == layer]
            ids = np.array([[key % residency.num_experts for key in keys]], np.int32)
            for _ in residency.fetch(layer, ids) or ():
                pass
        assert engine.streaming.stats().decode.misses == 0
        assert engine.streaming.stats().decode.hits == len(hot)
        assert io == "madvise" or told[-1] == (warming.experts, warming.experts)


def test_a_long_prompt_is_counted_in_one_pass_and_one_that_breaks_off_is_not():
    tokens, counted = sample_tokens()[:28], []
    for streamed in (False, True):
        with open_engine("qwen3moe") as engine, ProfileRecorder(None, engine) as recorder:
            if streamed:
                engine.stream(plan(1 << 24), options_of(io="pread"))
            session = engine.session()
            observer, heard = recorder.observer(session), []

            def break_off(event, heard=heard, observer=observer):
                observer(event)
                heard.append(event.layer)
                if len(heard) == 2:
                    raise InterruptedError

            with pytest.raises(InterruptedError):
                session.forward(tokens, chunk_tokens=7, on_route=ByLayer(break_off))
            assert heard == ([0, 0] if streamed else [0, 1])
            session.truncate(0)
            session.forward(tokens, chunk_tokens=7, on_route=observer)
            assert session.passes == (1 if streamed else 4)
            counted.append(recorder._counted(Path("counted")))
    np.testing.assert_array_equal(counted[0].uses, counted[1].uses)
    np.testing.assert_array_equal(counted[0].decayed, counted[1].decayed)
    assert counted[0].tokens == len(tokens)


def test_a_profile_of_another_model_is_refused():
    with open_engine("olmoe-q4_1") as other:
        profile = made_up(other)
    with open_engine("qwen3moe") as engine, pytest.raises(ProfileError, match="not of qwen3moe"):
        engine.stream(plan(1 << 14), options_of(), profile)


@pytest.mark.parametrize("io", ["pread", "direct"])
def test_a_disk_error_while_a_profile_is_read_leaves_nothing_behind(io, monkeypatch):
    with open_engine("qwen3moe") as engine:
        profile = made_up(engine)
        expected = engine.session().forward(sample_tokens()[:3])
        make = ExpertReader.__init__

        def broken(self, *args, **kwargs):
            make(self, *args, **kwargs)
            self.inject(error=errno.EIO)

        monkeypatch.setattr(ExpertReader, "__init__", broken)
        before = count("/dev/fd")
        with pytest.raises(StorageError, match="Input/output error"):
            engine.stream(plan(1 << 18), options_of(io=io), profile)
        assert engine.streaming is None
        assert count("/dev/fd") == before
        np.testing.assert_array_equal(engine.session().forward(sample_tokens()[:3]), expected)
