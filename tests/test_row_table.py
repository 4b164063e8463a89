"""Tables of which a token reads a few rows: how they are read, and that nothing else is."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import GOLDEN, open_engine, options_of, plan, sample_tokens

from moestream.backends.reference import ReferenceBackend
from moestream.engine.engine import Engine
from moestream.engine.model_plan import plan_model
from moestream.errors import ModelFormatError, ModelNotFoundError
from moestream.forecast.demand import read_demand
from moestream.gguf import GGUFFile
from moestream.layers.cache import state_bytes
from moestream.layers.ngrams import NGramShape
from moestream.layers.per_layer import PerLayer
from moestream.layers.weights import Weights
from moestream.models import read_config
from moestream.models.summary import summarize
from moestream.streaming.rows import RowReader, Table

ROWS = np.random.default_rng(7).integers(0, 256, (50, 24), np.uint8)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    path = tmp_path / "table"
    path.write_bytes(b"x" * 11 + ROWS.tobytes())
    return Table(path, path.stat(), 11, ROWS.shape[1])


@pytest.mark.parametrize("few", [0, 64])
def test_rows_come_in_the_order_that_they_were_asked_in(
    table: Table, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """By threads, or at once where the page cache has them."""
    monkeypatch.setattr("moestream.streaming.rows._FEW", few)
    reader = RowReader(table)
    wanted = np.array([[49, 3, 3], [0, 17, 49], [20, 21, 22], [1, 0, 30]])
    np.testing.assert_array_equal(reader.begin(wanted, 4).take(), ROWS[wanted.ravel()])
    assert reader.counts.per_token() == {"rows": 9 / 4, "bytes": 9 / 4 * 24}
    first, second = reader.begin(wanted[0], 1), reader.begin(wanted[1], 1)
    np.testing.assert_array_equal(second.take(), ROWS[wanted[1]])
    np.testing.assert_array_equal(first.take(), ROWS[wanted[0]])


def test_a_table_that_is_cut_short_or_gone_is_told(table: Table) -> None:
    reader = RowReader(table)
    reader.begin(np.array([1]), 1).take()
    os.truncate(table.path, 11 + 20 * 24 + 5)
    with pytest.raises(ModelFormatError, match="ends before row 20 of a table"):
        reader.begin(np.arange(30), 1).take()
    with pytest.raises(ModelFormatError, match="was replaced"):
        RowReader(table).begin(np.array([1]), 1)
    table.path.unlink()
    with pytest.raises(ModelNotFoundError, match="cannot be opened"):
        RowReader(table).begin(np.array([1]), 1)


@pytest.mark.parametrize("more", [0, 1])
def test_a_table_has_a_row_for_each_token(more: int) -> None:
    with GGUFFile.open(GOLDEN / "gemma4-e.gguf") as file:
        config = read_config(file)
        sizes = {"hidden_size": config.hidden_size, "size": 12, "layers": config.num_layers}
        tokens = config.vocab_size + more
        weights = Weights(file, ReferenceBackend())
        if not more:
            PerLayer(weights, vocab_size=tokens, eps=1e-6, **sizes)
            return
        with pytest.raises(ModelFormatError, match=f"expected one for each of {tokens} tokens"):
            PerLayer(weights, vocab_size=tokens, eps=1e-6, **sizes)


def test_a_token_reads_its_rows_and_nothing_else_of_the_table() -> None:
    with open_engine("qwen4exp", "cpu") as engine:
        assert engine.rows_per_token is None
        engine.session().forward(sample_tokens()[:3])
        assert engine.rows_per_token == {"rows": 4, "bytes": 4 * 8 * 4}
    with open_engine("gemma4-e", "cpu") as engine:
        engine.session().forward(sample_tokens()[:3])
        assert engine.rows_per_token == {"rows": 1, "bytes": 9 * 12 * 4}
    with open_engine("qwen3next", "cpu") as engine:
        engine.session().forward(sample_tokens()[:3])
        assert engine.rows_per_token is None


def test_a_table_takes_no_memory_in_the_plan() -> None:
    with GGUFFile.open(GOLDEN / "qwen4exp.gguf") as file:
        table = file.tensors["per_layer_token_embd.weight"].n_bytes
        sizes = summarize(file).sizes
        common = {"num_experts_per_tok": 2, "kv_bytes": 0, "process_bytes": 0}
        planned = plan_model("1G", file, **common)
        embedding = file.tensors["token_embd.weight"].n_bytes
        assert sizes.table_bytes == table == (411 * 8) * 4
        assert planned.dense_bytes == sizes.dense_bytes - embedding
        assert sum(read_demand(file).dense_bytes.values()) == planned.dense_bytes


def test_a_file_without_a_table_runs_and_without_its_rows_does_not(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    shutil.copy(GOLDEN / "qwen4exp.gguf", path)
    with Engine.open(path, backend="cpu") as engine:
        session = engine.session()
        session.forward([1, 2])
        info = engine.file.tensors["per_layer_token_embd.weight"]
        os.truncate(path, info.offset + 100)
        with pytest.raises(ModelFormatError, match=r"cut short|ends before"):
            session.forward([3, 4])


@pytest.mark.parametrize("name", ["qwen4exp", "gemma4-e"])
@pytest.mark.parametrize("cut", [1, 5, 30])
def test_rows_are_right_wherever_a_stream_of_tokens_was_cut(name: str, cut: int) -> None:
    tokens = sample_tokens()[:32]
    with open_engine(name, "cpu") as engine:
        whole = engine.session().forward(tokens)
        session = engine.session()
        first, rest = session.forward(tokens[:cut]), session.forward(tokens[cut:])
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)


def test_a_long_streamed_pass_looks_grams_up_beyond_its_chunks() -> None:
    tokens = sample_tokens()
    with open_engine("qwen4exp", "cpu") as engine:
        whole = engine.session().forward(tokens)
        engine.stream(plan(1 << 24), options_of(io="pread"))
        chunked = engine.session().forward(tokens, chunk_tokens=5)
    np.testing.assert_array_equal(chunked, whole)


@pytest.mark.parametrize("size", [1, 7, 24])
def test_layers_that_borrow_keys_do_so_in_any_chunks(size: int) -> None:
    tokens = sample_tokens()
    with open_engine("gemma4-e", "cpu") as engine:
        whole = engine.session().forward(tokens)
        np.testing.assert_array_equal(engine.session().forward(tokens, chunk_tokens=size), whole)
        session = engine.session()
        session.forward(tokens)
        session.truncate(20)
        np.testing.assert_array_equal(session.forward(tokens[20:]), whole[20:])


def test_layers_that_borrow_keep_nothing() -> None:
    with GGUFFile.open(GOLDEN / "gemma4-e.gguf") as file:
        config = read_config(file)
    kept = [state_bytes([shape], 256, ("f16", "f16")) for shape in config.state_shapes()]
    sliding, full = 2 * 256 * 2 * 2 * 16, 2 * 256 * 2 * 1 * 24
    assert kept == [sliding] * 3 + [full, sliding, full] + [0] * 3
    assert [config.lender(layer) for layer in range(9)] == [0, 1, 2, 3, 4, 5, 4, 4, 5]


def test_grams_are_hashed_as_they_are_told() -> None:
    shape = NGramShape(
        longest=3,
        multipliers=(35184372088891, 35184372088951, 2**63 + 11),
        offsets=(0, 97, 198, 301),
        sizes=(97, 101, 103, 107),
        end=2,
        kernel=4,
    )
    tokens = [-1, 9, 5, 2, 7, 7, 127, 2, 2, 3, 99]
    expected = []
    for i in range(2, len(tokens)):
        grams, seen = [tokens[i] * shape.multipliers[0]], True
        for back in (1, 2):
            before = tokens[i - back]
            seen = seen and before not in (-1, 2)
            grams.append(grams[-1] ^ ((before if seen else 2) * shape.multipliers[back]))
        expected.append(
            [grams[1 + h // 2] % 2**64 % shape.sizes[h] + shape.offsets[h] for h in range(4)]
        )
    np.testing.assert_array_equal(shape.rows(np.array(tokens)), expected)
