"""The native reader: right bytes by every method, order, errors, and a clean end."""

import errno
import mmap
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from expert_files import EXPERTS, LAYERS, write_experts
from stalled import check_interrupted

pytest.importorskip("moestream._native", reason="needs the compiled part")

from moestream.choices import READ_METHODS
from moestream.errors import ModelFormatError, StorageError
from moestream.gguf import GGUFFile
from moestream.streaming.reader import ABSENT, FAILED, READY, ExpertReader
from moestream.streaming.slots import AnonymousSlots, bytes_at
from moestream.streaming.store import ExpertStore

KEYS = [layer * EXPERTS + expert for layer in LAYERS for expert in range(EXPERTS)]


@pytest.fixture(params=["separate", "fused", "sharded"])
def store(request, tmp_path):
    path = write_experts(
        tmp_path / "m.gguf",
        fused=request.param == "fused",
        shards=2 if request.param == "sharded" else 1,
        width=96,
        hidden=160,
    )
    with GGUFFile.open(path) as file, ExpertStore(file) as store:
        yield store


@pytest.fixture
def one(tmp_path):
    with GGUFFile.open(write_experts(tmp_path / "m.gguf")) as file, ExpertStore(file) as store:
        yield store


def slots_for(reader: ExpertReader) -> AnonymousSlots:
    return AnonymousSlots(max(max(reader.layout.slot_bytes.values()), 4096), max(KEYS) + 1)


def parts(store: ExpertStore, reader: ExpertReader, key: int, address: int) -> list[bytes]:
    sizes = part_sizes(store, key)
    begins = reader.part_addresses(key, address).tolist()
    return [bytes_at(at, n).tobytes() for at, n in zip(begins, sizes, strict=True)]


def part_sizes(store: ExpertStore, key: int) -> list[int]:
    segments = store.layers[key // EXPERTS].segments(key % EXPERTS)
    if len(segments) == 2:
        half = segments[0].n_bytes // 2
        return [half, half, segments[1].n_bytes]
    return [segment.n_bytes for segment in segments]


def expected(store: ExpertStore, key: int) -> bytes:
    segments = store.layers[key // EXPERTS].segments(key % EXPERTS)
    return b"".join(os.pread(store.descriptor(s.shard), s.n_bytes, s.offset) for s in segments)


def wait_all(reader: ExpertReader, keys: list[int]) -> None:
    left = list(keys)
    while left:
        for key in reader.wait_any(left):
            left.remove(key)


@pytest.mark.parametrize("method", READ_METHODS)
@pytest.mark.parametrize("threads", [1, 5])
def test_reads_the_right_bytes(store, method, threads):
    with ExpertReader(store, method, threads=threads, piece_bytes=8192) as reader:
        memory = slots_for(reader)
        at = {key: 0 if method == "madvise" else memory.slot_address(key) for key in KEYS}
        for place, key in enumerate(KEYS):
            reader.submit(key, at[key], place % 3 == 0, 1)
        wait_all(reader, KEYS)
        for key in KEYS:
            assert reader.states[key] == READY
            assert b"".join(parts(store, reader, key, at[key])) == expected(store, key)
        counters = reader.counters()
        assert counters["demand_bytes"] + counters["speculative_bytes"] >= store.total_bytes
        assert 1 <= counters["deepest"] <= threads


def test_demand_goes_before_guesses_and_a_promoted_guess_is_demand(one):
    with ExpertReader(one, "pread", threads=1) as reader:
        memory = slots_for(reader)
        reader.inject(delay_s=0.02)
        blocker, guess, promoted, demand = KEYS[:4]
        reader.submit(blocker, memory.slot_address(blocker), False, 1)
        for key in (guess, promoted):
            reader.submit(key, memory.slot_address(key), True, 1)
        reader.submit(demand, memory.slot_address(demand), False, 1)
        reader.submit(promoted, memory.slot_address(promoted), False, 1)
        for key in (demand, promoted):
            reader.wait_any([key])
            assert reader.states[guess] != READY
        reader.wait_any([guess])
        assert reader.counters()["speculative_bytes"] < 3 * one.layers[1].expert_bytes


def test_guesses_that_have_not_begun_are_taken_back(one):
    with ExpertReader(one, "pread", threads=1) as reader:
        memory = slots_for(reader)
        reader.inject(delay_s=30)
        reader.submit(KEYS[0], memory.slot_address(0), False, 1)
        while reader.states[KEYS[0]] != 2:
            time.sleep(0.001)
        for generation, key in enumerate(KEYS[1:4]):
            reader.submit(key, memory.slot_address(1), True, generation)
        assert reader.cancel_before(2) == KEYS[1:3]
        assert [reader.states[key] for key in KEYS[1:4]] == [ABSENT, ABSENT, 1]
        assert reader.counters()["cancelled"] == 2


def test_an_error_of_the_disk_is_an_error_that_names_the_expert(one):
    with ExpertReader(one, "pread") as reader:
        memory = slots_for(reader)
        reader.inject(error=errno.EIO)
        reader.submit(KEYS[1], memory.slot_address(0), False, 1)
        with pytest.raises(StorageError, match=r"expert 1 of layer 1 .*Input/output error"):
            reader.wait_any([KEYS[1]])
        assert reader.states[KEYS[1]] == FAILED
        reader.inject()
        reader.submit(KEYS[1], memory.slot_address(0), False, 2)
        assert reader.wait_any([KEYS[1]]) == [KEYS[1]]


@pytest.mark.parametrize("method", READ_METHODS)
def test_a_file_cut_short_is_an_error_and_no_signal(tmp_path, method):
    path = write_experts(tmp_path / "m.gguf")
    with (
        GGUFFile.open(path) as file,
        ExpertStore(file) as store,
        ExpertReader(store, method) as reader,
    ):
        memory = slots_for(reader)
        os.truncate(path, 4096)
        last = KEYS[-1]
        reader.submit(last, memory.slot_address(0), False, 1)
        with pytest.raises(ModelFormatError, match="cut short"):
            reader.wait_any([last])


def test_what_is_resident_of_a_mapping(one):
    with ExpertReader(one, "madvise") as reader:
        fd = one.descriptor(0)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if reader.is_resident(KEYS[5]):
            pytest.skip("this file system keeps its pages")
        reader.submit(KEYS[5], 0, False, 1)
        reader.wait_any([KEYS[5]])
        assert reader.is_resident(KEYS[5])


def test_closing_ends_threads_and_descriptors_even_in_the_middle(one):
    threads, descriptors = threading_count(), len(list(Path("/dev/fd").iterdir()))
    for _ in range(30):
        with ExpertReader(one, "direct") as reader:
            memory = slots_for(reader)
            for key in KEYS:
                reader.submit(key, memory.slot_address(key), key % 2 == 0, 1)
    deadline = time.monotonic() + 5
    while threading_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)  # the system may list a thread for a moment after it was joined
    assert threading_count() <= threads
    assert len(list(Path("/dev/fd").iterdir())) == descriptors


def threading_count() -> int:
    if Path("/proc/self/task").exists():
        return len(list(Path("/proc/self/task").iterdir()))
    return threading.active_count()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 0}, "threads"),
        ({"piece_bytes": 1000}, "piece_bytes"),
    ],
)
def test_bad_options_are_refused(one, change, message):
    with pytest.raises(ValueError, match=message):
        ExpertReader(one, "pread", **change)


def test_keys_are_checked(one):
    with ExpertReader(one, "pread") as reader:
        for key in (-1, len(reader.states), 1 << 40):
            with pytest.raises(IndexError):
                reader.submit(key, 0, False, 1)
        with pytest.raises(ValueError, match="not being read"):
            reader.wait_any([KEYS[0]])
        assert reader.wait_any([]) == []
    with pytest.raises(ValueError, match="closed"):
        reader.submit(KEYS[0], 0, False, 1)


def test_states_outlive_the_reader(one):
    reader = ExpertReader(one, "pread")
    states = reader.states
    reader.close()
    del reader
    assert np.frombuffer(states, np.uint8).sum() == 0


_STALLED = """
import signal, sys
# A job in the background of a shell starts with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from moestream.streaming.slots import AnonymousSlots
from moestream.streaming.reader import ExpertReader
from moestream.streaming.store import ExpertStore
from moestream.gguf import GGUFFile
store = ExpertStore(GGUFFile.open(Path(sys.argv[1])))
with ExpertReader(store, "pread") as reader:
    reader.inject(delay_s=60)
    memory = AnonymousSlots(max(reader.layout.slot_bytes.values()), 1)
    reader.submit(store.key(1, 0), memory.address, False, 1)
    print("waiting", flush=True)
    try:
        reader.wait_any([store.key(1, 0)])
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_ends_a_stall(one):
    check_interrupted(_STALLED, one.file.path)


def test_dropping_an_expert_touches_nothing_beside_the_mapping(tmp_path: Path) -> None:
    path = write_experts(tmp_path / "model.gguf")
    with (
        GGUFFile.open(path) as file,
        ExpertStore(file) as store,
        ExpertReader(store, "madvise") as reader,
    ):
        ranges = reader.layout.ranges
        first_key = store.key(min(store.layers), 0)
        begins = int(ranges[first_key, 0, 3] - ranges[first_key, 0, 1])
        ends = begins + -(-path.stat().st_size // 4096) * 4096
        asked: list[tuple[int, int]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "moestream.streaming.reader._madvise",
                lambda address, size, _: asked.append((address, address + size)),
            )
            for key in range(store.num_keys):
                if key // store.num_experts in store.layers:
                    reader.drop(key)
        assert asked
        assert all(begins <= first < last <= ends for first, last in asked)


@pytest.mark.skipif(not hasattr(mmap, "MADV_NOHUGEPAGE"), reason="the system has no huge pages")
def test_a_slot_handed_back_leaves_the_others_their_huge_pages() -> None:
    memory = AnonymousSlots(1 << 21, 8)
    memory.trim(3)
    flags: dict[int, list[str]] = {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if "-" in name:
            begin = int(name.split("-")[0], 16)
        elif name == "VmFlags:":
            flags[begin] = rest
    assert "nh" in flags[memory.slot_address(3)]
    assert "hg" in flags[memory.slot_address(4)]
