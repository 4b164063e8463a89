"""What mapped experts take of this process's memory, in a file that the page cache holds in folios.

Linux of old maps 64 KiB around a page that is asked for, and since 6.18 all of a large folio.
"""

import mmap
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from expert_files import EXPERTS, LAYERS, write_experts

pytest.importorskip("moestream._native", reason="needs the compiled part")
if sys.platform != "linux":
    pytest.skip("what is mapped is read from /proc", allow_module_level=True)

from moestream.gguf import GGUFFile
from moestream.streaming import fences
from moestream.streaming.fences import Fences
from moestream.streaming.footprint import Footprint
from moestream.streaming.mapped import MappedResidency
from moestream.streaming.reader import ExpertReader
from moestream.streaming.store import ExpertStore

PAGE = mmap.PAGESIZE
EXPERT_BYTES = 3 * 4 * 160 * 250  # an expert's parts begin and end within pages


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in large folios, where the file system and Linux make such."""
    folder = tmp_path_factory.mktemp("folios")
    data = write_experts(folder / "small.gguf", width=160, hidden=250).read_bytes()
    with open(folder / "large.gguf", "wb", buffering=0) as file:  # noqa: PTH123 - unbuffered
        file.write(data)
    return folder / "large.gguf"


@pytest.fixture
def reader(path: Path) -> Iterator[ExpertReader]:
    with (
        GGUFFile.open(path) as file,
        ExpertStore(file) as store,
        ExpertReader(store, "madvise") as reader,
    ):
        yield reader


KEYS = [layer * EXPERTS + expert for layer in LAYERS for expert in range(EXPERTS)]


def mapped_bytes() -> int:
    """What is in memory of mapped files of this test: not code, which other threads may run."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.startswith("Rss:"):
            total += ours * (int(line.split()[1]) << 10)
        elif "-" in line.split(" ", 1)[0]:
            ours = line.endswith("large.gguf")
    return total


def locked_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmLck"))


def areas() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def page_in(reader: ExpertReader, keys: list[int]) -> None:
    for key in keys:
        reader.forget(key)
        reader.submit(key, 0, False, 0)
    left = list(keys)
    while left:
        for key in reader.wait_any(left):
            left.remove(key)


def needs_folios(reader: ExpertReader) -> None:
    """Skip where a fault maps no more than the 64 KiB around it."""
    before = mapped_bytes()
    page_in(reader, [KEYS[3]])
    mapped = mapped_bytes() - before
    for key in KEYS:
        reader.drop(key)
    if mapped < EXPERT_BYTES + 6 * (64 << 10):
        pytest.skip("this kernel and file system map no large folios")


def test_only_what_was_asked_for_is_mapped(reader: ExpertReader) -> None:
    needs_folios(reader)
    footprint = Footprint(reader, 1 << 30, fenced=True)
    asked, before = KEYS[1::4], mapped_bytes()
    footprint.touch(asked)
    page_in(reader, asked)
    assert mapped_bytes() - before <= footprint.n_bytes
    assert len(asked) * EXPERT_BYTES <= footprint.n_bytes <= len(asked) * (EXPERT_BYTES + 6 * PAGE)
    footprint.close()


def test_what_is_let_go_is_mapped_no_more(reader: ExpertReader) -> None:
    room = 8 * (EXPERT_BYTES + 6 * PAGE)
    footprint, before = Footprint(reader, room, fenced=True), mapped_bytes()
    for turn, key in enumerate([*KEYS, *KEYS]):
        if turn == len(KEYS):  # now an eighth is for rows
            footprint.room_bytes = room = room * 7 // 8
        footprint.touch([key])
        page_in(reader, [key])
        assert mapped_bytes() - before <= room
    footprint.close()


def test_what_is_still_being_read_is_not_let_go_of(reader: ExpertReader) -> None:
    footprint, guess = Footprint(reader, EXPERT_BYTES, fenced=True), KEYS[4]
    reader.inject(delay_s=0.02)
    footprint.touch([guess])
    reader.submit(guess, 0, True, 1)
    footprint.touch(KEYS[:1])
    reader.wait_any([guess])
    assert EXPERT_BYTES < mapped_bytes() <= footprint.n_bytes
    footprint.touch(KEYS[:1])
    assert mapped_bytes() == 0
    footprint.close()


def test_locks_count_to_the_page_and_end_whole(reader: ExpertReader) -> None:
    footprint, before = Footprint(reader, 1 << 20, fenced=True), locked_bytes()
    first, second = KEYS[1:3]
    assert footprint.lock(first)
    alone = locked_bytes()
    assert footprint.n_bytes == alone - before
    assert footprint.lock(second)
    footprint.touch([first])  # what is locked stays
    assert footprint.n_bytes >= locked_bytes() - before > alone - before
    footprint.unlock(second)
    assert locked_bytes() == alone
    assert footprint.n_bytes == alone - before
    footprint.close()
    assert (locked_bytes(), footprint.n_bytes) == (before, 0)


def test_the_mapping_is_left_as_it_was(reader: ExpertReader) -> None:
    before = areas()
    footprint = Footprint(reader, 1 << 20, fenced=True)
    assert areas() >= before + 2 * 3 * len(KEYS) - 12
    assert not reader.drops_around
    footprint.close()
    assert areas() <= before + 2


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_parts_that_meet_at_a_page_are_parted(count: int, shift: int) -> None:
    with mmap.mmap(-1, 64 * PAGE) as memory:
        begin = np.frombuffer(memory, np.uint8).ctypes.data
        parts = [(0, begin + (4 + 3 * n) * PAGE + shift, 3 * PAGE) for n in range(count)]
        before = areas()
        up = Fences(np.array(parts, np.int64))
        # One before, one after, each part, and each page that two share.
        assert up.are_exact
        assert areas() - before >= count + shift * (count - 1)
        up.take_down()
        assert areas() <= before


def test_neighbours_share_an_area_where_there_are_few(
    reader: ExpertReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fences, "_most_areas", lambda: 40)
    before = areas()
    footprint = Footprint(reader, 1 << 20, fenced=True)
    assert before + 10 < areas() <= before + 31
    assert reader.drops_around
    footprint.close()


def residency(reader: ExpertReader, room_bytes: int) -> MappedResidency:
    addresses = reader.layout.parts.astype(np.uint64)
    sizes = dict.fromkeys(LAYERS, EXPERT_BYTES)
    return MappedResidency(reader, addresses, None, sizes, EXPERTS, room_bytes=room_bytes)


@contextmanager
def within(
    reader: ExpertReader, experts: int
) -> Iterator[tuple[MappedResidency, Callable[[], None]]]:
    """A residency with room for so many experts, and a check that it takes no more.

    To it all of them look as if the page cache had lost them.
    """
    room = experts * (EXPERT_BYTES + 6 * PAGE)
    mapped, before = residency(reader, room), mapped_bytes()
    mapped.reader.is_resident = lambda key: False

    def check() -> None:
        assert mapped_bytes() - before <= room

    yield mapped, check
    mapped.close()


def test_guesses_that_were_wrong_take_no_memory_beyond_the_room(reader: ExpertReader) -> None:
    with within(reader, 2) as (mapped, check):
        for expert in range(2, EXPERTS):
            mapped.speculate(LAYERS[1], [expert], 1)
            for layer in LAYERS:
                for _ in mapped.fetch(layer, np.array([[expert % 2]], np.int32)) or ():
                    pass
            check()


def test_a_profile_warms_within_the_room(reader: ExpertReader) -> None:
    with within(reader, 2) as (mapped, check):
        for hot in KEYS[::2]:
            mapped.warm([float(key == hot) for key in range(KEYS[-1] + 1)])
            check()


def test_layers_are_paged_in_within_the_room(reader: ExpertReader) -> None:
    every = np.arange(EXPERTS, dtype=np.int32)[None].repeat(2, 0)
    with within(reader, 8) as (mapped, check):
        for layer in (*LAYERS, *LAYERS):
            arrivals, seen = mapped.fetch(layer, every), []
            time.sleep(0.05)  # what was begun is paged in
            check()
            for some in arrivals or ():
                seen += some
                check()
            assert sorted(seen) == list(range(EXPERTS))
