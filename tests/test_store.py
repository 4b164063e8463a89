"""Where experts lie: segments against the tensors that GGUFFile maps, and files that change."""

import os
from pathlib import Path

import pytest
from expert_files import EXPERTS, LAYERS, write_experts

from moestream.errors import ModelFormatError
from moestream.gguf import GGUFFile
from moestream.streaming.layout import ALIGNMENT, mapped_layout, slot_layout
from moestream.streaming.store import ExpertKey, ExpertStore

GOLDEN = Path(__file__).parent / "data" / "golden"


@pytest.fixture(params=["separate", "fused", "sharded"])
def file(request, tmp_path):
    fused, shards = request.param == "fused", 2 if request.param == "sharded" else 1
    with GGUFFile.open(write_experts(tmp_path / "m.gguf", fused=fused, shards=shards)) as file:
        assert len(file.shards) == shards
        yield file


def expected(file: GGUFFile, layer: int, expert: int) -> list[bytes]:
    names = ("ffn_gate_up_exps", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
    full = [f"blk.{layer}.{name}.weight" for name in names]
    return [file.tensor(name).data[expert].tobytes() for name in full if name in file.tensors]


def test_segments_are_the_tensors_bytes(file):
    with ExpertStore(file) as store:
        assert tuple(store.layers) == LAYERS
        assert store.num_experts == EXPERTS
        for layer in LAYERS:
            for expert in range(EXPERTS):
                segments = store.segments(ExpertKey(layer, expert))
                read = [os.pread(store.descriptor(s.shard), s.n_bytes, s.offset) for s in segments]
                assert read == expected(file, layer, expert)


def test_sizes(file):
    with ExpertStore(file) as store:
        one = len(b"".join(expected(file, 1, 0)))
        assert store.layers[1].expert_bytes == one
        assert store.total_bytes == one * EXPERTS * len(LAYERS)
        assert store.token_bytes(2) == one * 2 * len(LAYERS)
        assert store.num_keys == 3 * EXPERTS  # layer 0's are never used


def test_slots_take_whole_pages_and_parts_lie_where_they_are_said_to(file):
    with ExpertStore(file) as store:
        fds = [store.descriptor(shard) for shard in range(len(file.shards))]
        layout = slot_layout(store, fds)
        for layer in LAYERS:
            for expert in range(EXPERTS):
                key = store.key(layer, expert)
                slot = bytearray(layout.slot_bytes[layer])
                for fd, offset, n_bytes, place, needed in layout.ranges[key].tolist():
                    assert offset % ALIGNMENT == n_bytes % ALIGNMENT == place % ALIGNMENT == 0
                    data = os.pread(fd, n_bytes, offset) if n_bytes else b""
                    assert len(data) >= needed
                    slot[place : place + len(data)] = data
                assert_parts(slot, layout.parts[key].tolist(), expected(file, layer, expert))


def assert_parts(slot: bytearray, parts: list[int], tensors: list[bytes]) -> None:
    if len(tensors) == 2:
        half = len(tensors[0]) // 2
        tensors = [tensors[0][:half], tensors[0][half:], tensors[1]]
    for begin, tensor in zip(parts, tensors, strict=True):
        assert slot[begin : begin + len(tensor)] == tensor


def test_mapped_parts_are_the_mapping(file):
    with ExpertStore(file) as store:
        layout = mapped_layout(store)
        down = file.tensor("blk.2.ffn_down_exps.weight").data
        for expert in range(EXPERTS):
            assert layout.parts[store.key(2, expert), 2] == down[expert].ctypes.data


def test_a_dense_model_has_no_experts():
    with GGUFFile.open(GOLDEN / "llama.gguf") as file, ExpertStore(file) as store:
        assert not store.layers
        assert (store.num_keys, store.total_bytes) == (0, 0)


def test_a_file_cut_short_is_noticed(file):
    with ExpertStore(file) as store:
        store.check()
        os.truncate(file.shards[-1], file.shards[-1].stat().st_size - 100)
        with pytest.raises(ModelFormatError, match="leave a model's file alone"):
            store.check()


def test_a_file_written_to_is_noticed(file):
    with ExpertStore(file) as store:
        status = file.shards[0].stat()
        os.utime(file.shards[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        with pytest.raises(ModelFormatError, match="was written to"):
            store.check()


def test_a_file_replaced_while_running_does_no_harm(file, tmp_path):
    with ExpertStore(file) as store:
        before = expected(file, 1, 0)
        other = tmp_path / "other"
        other.write_bytes(b"something else")
        other.replace(file.shards[0])
        store.check()
        segments = store.segments(ExpertKey(1, 0))
        after = [os.pread(store.descriptor(s.shard), s.n_bytes, s.offset) for s in segments]
        assert after == before


def test_a_file_replaced_before_its_experts_were_opened_is_refused(file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(file.shards[0].read_bytes())
    other.replace(file.shards[0])
    with pytest.raises(ModelFormatError, match="was replaced"):
        ExpertStore(file)


def test_no_descriptor_is_left_open(file):
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(20):
        ExpertStore(file).close()
    assert len(list(Path("/dev/fd").iterdir())) == before
