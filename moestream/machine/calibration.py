"""Measures what this machine gives: kernels, memory, the cost of a layer, and a disk.

Owns how each is measured. What is done with the figures, and how long they are kept, is
``speeds``' business.
"""

import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray

from moestream import _native
from moestream.backends.cpu import CpuBackend
from moestream.engine.engine import Engine
from moestream.errors import StorageError
from moestream.folders import scratch_folder, sync
from moestream.gguf import GGUFFile, Tensor
from moestream.quants import GGMLQuantizationType, row_bytes
from moestream.streaming.options import StreamingOptions
from moestream.streaming.reader import ExpertReader
from moestream.streaming.slots import AnonymousSlots
from moestream.streaming.store import ExpertStore

_BLOCK_BYTES = 128 << 20
"""Of the matrix that a kernel's speed is measured on: more than caches hold."""
_COLUMNS = 2048
_REPEATS = 5
LAYERS, HIDDEN, _WIDTH, _EXPERTS = 8, 256, 32, 16
_TOKENS = 48
_BATCH_BYTES = 32 << 20
"""Read at once at most, to see a disk's speed with many reads under way."""
_SCRATCH_BYTES = 128 << 20


def memory_speed(backend: CpuBackend) -> float:
    """Bytes a second that all threads together read from memory."""
    context = _native.Context(backend.threads, backend.isa)
    return context.read_bandwidth(2 * _BLOCK_BYTES)


def kernel_speeds(backend: CpuBackend, types: Iterable[str], memory: float) -> dict[str, float]:
    """Bytes of weights a second that a token's products go through, by quantisation type.

    Not more than ``memory``: what a cache adds in a measurement, it does not in a model.
    """
    noise = ordinary_noise(_BLOCK_BYTES)
    return {name: min(_kernel_speed(backend, name, noise), memory) for name in types}


def ordinary_noise(size: int) -> NDArray[np.uint8]:
    """Random bytes of which no type makes a denormal number: processors are slow with those."""
    return np.random.default_rng(0).integers(32, 64, size, np.uint8)


def _kernel_speed(backend: CpuBackend, name: str, noise: NDArray[np.uint8]) -> float:
    type = GGMLQuantizationType[name]
    size = row_bytes(type, _COLUMNS)
    data = noise[: len(noise) // size * size].reshape(-1, size)
    matrix = backend.matrix(Tensor(name, type, (len(data), _COLUMNS), data))
    x = np.ones((1, _COLUMNS), np.float32)
    return data.nbytes / median_s(lambda: backend.linear(x, matrix))


def median_s(run: Callable[[], object]) -> float:
    """Seconds that a call takes, the median of some."""
    return statistics.median(_timed_s(run) for _ in range(_REPEATS))


def _timed_s(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def layer_costs(folder: Path) -> tuple[float, float]:
    """Seconds that a layer takes beside its bytes, and those that streaming adds.

    Of a model so small that calls are all there is to it, written to ``folder`` for the moment.
    """
    with scratch_folder(folder) as scratch:
        path = write_tiny(scratch / "tiny.gguf")
        with Engine.open(path, backend="cpu", context_length=_TOKENS) as engine:
            mapped = _token_s(engine)
            plan = engine.plan_memory("auto")
            room = replace(plan, experts_bytes=2 * plan.total_expert_bytes)
            engine.stream(room, StreamingOptions(io="pread"))
            streamed = _token_s(engine)
    return mapped / LAYERS, max(streamed - mapped, 0.0) / LAYERS


def disk_costs(file: GGUFFile) -> tuple[float, float]:
    """Seconds before a read of one expert begins, and bytes a second once many are under way.

    Of the disk that the model's file lies on, past the page cache where that can be.
    """
    with ExpertStore(file) as store:
        try:
            reader = ExpertReader(store, "direct")
        except StorageError:  # a file system in memory, or some over the network
            reader = ExpertReader(store, "pread")
        with reader:
            slot = max(reader.layout.slot_bytes.values())
            batch = min(max(_BATCH_BYTES // slot, 1), 8)
            memory = AnonymousSlots(slot, batch)
            reader.hold(memory)
            keys = [store.key(layer, n) for layer in store.layers for n in range(store.num_experts)]
            random.Random(time.time_ns()).shuffle(keys)  # a disk may have kept what was read before
            reads = _Reads(store, reader, memory, keys)
            # Means, for a run has to wait for the slow ones too.
            one = statistics.fmean(reads.seconds_per_byte(1) for _ in range(8 * _REPEATS))
            many = statistics.fmean(reads.seconds_per_byte(batch) for _ in range(2 * _REPEATS))
    size = statistics.fmean(experts.expert_bytes for experts in store.layers.values())
    return max(one - many, 0.0) * size, 1 / many


def disk_costs_of_folder(folder: Path, expert_bytes: int) -> tuple[float, float]:
    """The same of the disk that a folder lies on, for a model that is not there yet.

    Reads experts of about that size from a file of 128 MiB, written for the moment.

    Raises:
        StorageError: there is no room for it.
    """
    free = shutil.disk_usage(folder).free
    if free < 2 * _SCRATCH_BYTES:
        raise StorageError(
            f"{folder} has {free / 1e9:.2f} GB free, and to measure its disk takes a file of "
            f"{_SCRATCH_BYTES / 1e9:.2f} GB; make room, or set MOESTREAM_CACHE to a folder on "
            "another disk"
        )
    with scratch_folder(folder) as scratch:
        path = _write_experts(scratch / "experts.gguf", expert_bytes)
        sync(path)
        with GGUFFile.open(path) as file:
            return disk_costs(file)


def _write_experts(path: Path, expert_bytes: int) -> Path:
    """One layer of experts of noise, which a disk that compresses does not find easy."""
    rows = max(expert_bytes // (3 * 4 * HIDDEN), 1)
    experts = max(_SCRATCH_BYTES // (3 * 4 * HIDDEN * rows), 1)
    writer = GGUFWriter(path, "llama")
    noise = np.random.default_rng(0).integers(0, 2**32, (experts, rows, HIDDEN), np.uint32)
    for name, change in (("gate", 0), ("up", 1), ("down", 2)):
        values = (noise ^ np.uint32(change)).view(np.float32)
        writer.add_tensor(f"blk.0.ffn_{name}_exps.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class _Reads:
    """Batches of experts, read one batch after another."""

    def __init__(
        self, store: ExpertStore, reader: ExpertReader, memory: AnonymousSlots, keys: list[int]
    ) -> None:
        self._store, self._reader, self._slots, self._keys = store, reader, memory, keys
        self._next = 0

    def seconds_per_byte(self, count: int) -> float:
        """Read so many experts at once; none of them twice before all had their turn."""
        count = min(count, len(self._keys))
        batch = [self._keys[(self._next + n) % len(self._keys)] for n in range(count)]
        self._next += count
        started = time.perf_counter()
        for slot, key in enumerate(batch):
            self._reader.submit(key, self._slots.slot_address(slot), False, 0)
        left = list(batch)
        while left:
            for key in self._reader.wait_any(left):
                left.remove(key)
        seconds = time.perf_counter() - started
        for key in batch:
            self._reader.forget(key)
        layers = (key // self._store.num_experts for key in batch)
        return seconds / sum(self._store.layers[layer].expert_bytes for layer in layers)


def _token_s(engine: Engine) -> float:
    session = engine.session()
    return statistics.median(_timed_s(lambda: session.forward([1])) for _ in range(_TOKENS))


def write_tiny(path: Path, *, context: int = _TOKENS) -> Path:
    """A mixture of experts of which a token's weights stay in the processor's caches."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(HIDDEN // 64)
    writer.add_head_count_kv(HIDDEN // 64)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_expert_count(_EXPERTS)
    writer.add_expert_used_count(4)
    writer.add_vocab_size(64)
    random = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        values = random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[-1]))
        writer.add_tensor(f"{name}.weight", values if len(shape) > 1 else np.ones_like(values))

    add("token_embd", 64, HIDDEN)
    add("output_norm", HIDDEN)
    for layer in range(LAYERS):
        prefix = f"blk.{layer}"
        for name in ("attn_norm", "ffn_norm"):
            add(f"{prefix}.{name}", HIDDEN)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{prefix}.{name}", HIDDEN, HIDDEN)
        add(f"{prefix}.ffn_gate_inp", _EXPERTS, HIDDEN)
        add(f"{prefix}.ffn_gate_exps", _EXPERTS, _WIDTH, HIDDEN)
        add(f"{prefix}.ffn_up_exps", _EXPERTS, _WIDTH, HIDDEN)
        add(f"{prefix}.ffn_down_exps", _EXPERTS, HIDDEN, _WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
