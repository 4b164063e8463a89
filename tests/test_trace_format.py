"""Reading and writing routing traces, and what a damaged one says."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from moestream.engine.engine import Engine
from moestream.errors import TraceError
from moestream.traces.format import COLUMNS, DECODE, PREFILL, TraceHeader, read_trace
from moestream.traces.recording import Recording
from moestream.traces.routed_sets import routed_sets
from moestream.traces.writer import TraceWriter

SHARED = Path(__file__).parent / "data" / "traces"
HEADER = TraceHeader(2, 4, 2, {0: 100, 1: 200}, model="a model.gguf", arch="moe")
HEAD = "# route_trace v1\n# model=m arch=a n_layer=2 n_expert=4 n_expert_used=2\n"
SIZES = "# layer=0 expert_bytes=100\n# layer=1 expert_bytes=200\n"
NAMES = ",".join(COLUMNS) + "\n"
ROW = "0,1,5,0,0,3,0.75,0,100\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["run.route.csv", "run.route.csv.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    with TraceWriter(tmp_path / name, HEADER) as writer:
        writer.record(0, PREFILL, 0, 0, [[1, 2], [2, 3]], [[0.5, 0.25], [0.125, 1e-7]])
        writer.record(0, PREFILL, 0, 1, [[0, 1], [1, 0]], [[0.5, 0.5], [0.5, 0.5]])
        writer.record(0, DECODE, 2, 0, np.array([3, 1]), [0.75, 0.25], resident=[True, False])
    trace = read_trace(tmp_path / name)
    assert trace.header == HEADER
    rows = trace.rows
    assert rows["step"].tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2]
    assert rows["slot"].tolist() == [0, 1] * 5
    assert rows["expert"].tolist() == [1, 2, 2, 3, 0, 1, 1, 0, 3, 1]
    assert rows["residency"].tolist() == [1] * 9 + [0]
    assert rows["expert_bytes"].tolist() == [0] * 9 + [100]
    assert rows["weight"][:4].tolist() == [0.5, 0.25, 0.125, np.float32(1e-7)]
    assert trace.header.total_bytes == 4 * 300
    assert trace.header.token_bytes == 2 * 300


def test_an_expert_that_several_tokens_miss_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "run.route.csv"
    with TraceWriter(path, HEADER) as writer:
        ids, resident = [[1, 2], [3, 1]], [[False, True], [True, False]]
        writer.record(0, PREFILL, 0, 0, ids, np.ones((2, 2)), resident)
        writer.record(0, DECODE, 2, 0, [1, 3], [1, 1], [False, True])
    rows = read_trace(path).rows
    assert rows["residency"].tolist() == [0, 1, 1, 0, 0, 1]
    assert rows["expert_bytes"].tolist() == [100, 0, 0, 0, 100, 0]


def test_published_trace_is_read() -> None:
    trace = read_trace(SHARED / "qwen3-30b-a3b.route.csv.gz")
    header = trace.header
    assert (header.num_layers, header.num_experts, header.num_experts_per_tok) == (48, 128, 6)
    assert header.arch == "qwen3moe"
    assert header.model.endswith("Qwen3-30B-A3B-Q4_K_M.gguf")
    assert (header.expert_bytes[0], header.expert_bytes[6]) == (3059712, 2654208)
    assert len(trace.rows) == 44766
    last = trace.rows[-1]
    assert (last["step"], last["layer"], last["expert"], last["residency"]) == (155, 47, 126, 1)


@pytest.mark.parametrize("line", ["", "# layer=0 expert_bytes=0\n"])
def test_sizes_come_from_the_rows_when_the_header_has_none(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "t.csv", HEAD + line + NAMES + ROW + "0,1,5,0,1,2,0.25,1,0\n")
    assert read_trace(path).header.expert_bytes == {0: 100}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line of column names"),
        ("hello\n", "line 1: 'hello': expected the columns turn,phase"),
        (HEAD + SIZES, "no line of column names"),
        ("# n_layer=2 n_expert=4\n" + NAMES + ROW, "header: n_expert_used is nothing"),
        ("# n_layer=two n_expert=4 n_expert_used=2\n" + NAMES, "n_layer is two, expected a whole"),
        (HEAD + "# layer=0 expert_bytes=-5\n" + NAMES, "line 3: expert_bytes is -5"),
        (HEAD + SIZES + NAMES, "has no rows"),
        (HEAD + SIZES + NAMES + ROW + "0,1,5,0\n", "line 7: 4 columns, expected 9; was it cut"),
        (HEAD + SIZES + NAMES + ROW + ROW[:-5], "line 7: 8 columns"),
        (HEAD + SIZES + NAMES + ROW + "0,1,5,0,x,3,0.75,0,1\n", "line 7: slot is 'x', expected"),
        (HEAD + SIZES + NAMES + "0,2,5,0,0,3,0.75,0,1\n", "line 6: phase is '2'.*below 2"),
        (HEAD + SIZES + NAMES + "0,1,5,2,0,3,0.75,0,1\n", "line 6: layer is '2'.*below 2"),
        (HEAD + SIZES + NAMES + "0,1,5,0,0,4,0.75,0,1\n", "line 6: expert is '4'.*below 4"),
        (HEAD + SIZES + NAMES + "0,1,-5,0,0,3,0.75,0,1\n", "line 6: step is '-5'"),
        (HEAD + SIZES + NAMES + "0,1,99999999999,0,0,3,0.75,0,1\n", "line 6: step is"),
        (HEAD + SIZES + NAMES + "0,1,5,0,0,3,nan,0,1\n", "line 6: weight is 'nan'"),
        (HEAD + NAMES + "0,1,5,1,0,3,0.5,1,0\n", "how big an expert of layer 1 is"),
    ],
)
def test_damage_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(TraceError, match=message) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)


def test_binary_file_is_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"GGUF\xff\xfe\x00")
    with pytest.raises(TraceError, match="not text"):
        read_trace(path)


@pytest.mark.parametrize("keep", [5, 2000, -3])
def test_cut_archive_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes((SHARED / "gemma-4-26b-a4b.route.csv.gz").read_bytes()[:keep])
    with pytest.raises(TraceError, match="damaged or cut short"):
        read_trace(path)


def test_plain_text_named_gz_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="damaged"):
        read_trace(write(tmp_path / "t.csv.gz", HEAD))


def test_flipped_bit_is_named(tmp_path: Path) -> None:
    data = bytearray((SHARED / "gemma-4-26b-a4b.route.csv.gz").read_bytes())
    data[50_000] ^= 1
    path = tmp_path / "t.csv.gz"
    path.write_bytes(data)
    with pytest.raises(TraceError):
        read_trace(path)


def test_rows_become_sets(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t.csv", HEADER) as writer:
        writer.record(0, PREFILL, 0, 0, [[1, 2], [3, 1]], np.ones((2, 2)))
        writer.record(0, PREFILL, 0, 1, [[0, 1], [1, 0]], np.ones((2, 2)))
        for step in (2, 3):
            writer.record(0, DECODE, step, 0, [step, 0], [1, 1])
            writer.record(0, DECODE, step, 1, [1, 2], [1, 1])
        writer.record(1, PREFILL, 4, 0, [[3, 2]], [[1, 1]])
    sets = routed_sets(read_trace(tmp_path / "t.csv"))
    flat = [one for chunk in sets.chunks() for one in chunk]
    # Prefill is one set a layer, each expert once, where it was used last.
    assert flat == [
        ([2, 3, 1], 0),
        ([5, 4], 0),
        ([2, 0], 1),
        ([5, 6], 1),
        ([3, 0], 2),
        ([5, 6], 2),
        ([3, 2], 3),
    ]
    assert sets.layers.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert sets.decode.tolist() == [False, False, True, True, True, True, False]
    assert sets.lengths.tolist() == [3, 2, 2, 2, 2, 2, 2]


def test_prefill_chunks_are_passes_of_their_own(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t.csv", HEADER) as writer:
        for step in (0, 1):
            for layer in (0, 1):
                writer.record(0, PREFILL, step, layer, [[0, 1]], [[1, 1]])
    assert routed_sets(read_trace(tmp_path / "t.csv")).tokens.tolist() == [0, 0, 1, 1]


def test_writer_compresses(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t.csv.gz", HEADER) as writer:
        writer.record(0, DECODE, 0, 0, [0, 1], [1, 1])
    lines = gzip.decompress((tmp_path / "t.csv.gz").read_bytes()).decode().splitlines()
    assert lines[0] == "# route_trace v1"
    assert lines[-1] == "0,1,0,0,1,1,1,1,0"


def test_a_pass_that_is_broken_off_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    golden = Path(__file__).parent / "data" / "golden" / "qwen3moe.gguf"
    with Engine.open(golden, backend="reference") as engine:
        session = engine.session()
        with Recording(engine, trace=path, counting=True) as recording:
            on_route = recording.observer(session)
            asked = iter(range(100))
            list(
                session.generate(
                    [1, 2, 3], max_tokens=1, on_route=on_route, stop=lambda: next(asked) >= 1
                )
            )
            assert session.tokens == []
            list(session.generate([1, 2, 3], max_tokens=2, on_route=on_route))
            assert recording.profile is not None
            counted = recording.profile._counted(tmp_path / "p.json")
        layers, k = engine.config.num_layers, engine.config.num_experts_per_tok
    assert len(read_trace(path).rows) == 4 * layers * k
    assert set(counted.uses.sum(axis=1).tolist()) == {4 * k}
