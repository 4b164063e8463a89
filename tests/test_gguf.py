"""Well-formed files, written by the ``gguf`` package: what we read is what was put in."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf_bytes import ARRAY, STRING, RawGGUF, array, entry, key

from moestream.errors import ModelFormatError, ModelNotFoundError
from moestream.gguf import GGUFFile, IncompleteHeader, read_header

SCALARS: dict[GGUFValueType, int | float | bool | str] = {
    GGUFValueType.UINT8: 255,
    GGUFValueType.INT8: -128,
    GGUFValueType.UINT16: 65535,
    GGUFValueType.INT16: -32768,
    GGUFValueType.UINT32: 2**32 - 1,
    GGUFValueType.INT32: -(2**31),
    GGUFValueType.FLOAT32: 0.375,
    GGUFValueType.BOOL: True,
    GGUFValueType.STRING: "Ġpiù 🌍\n\0end",
    GGUFValueType.UINT64: 2**64 - 1,
    GGUFValueType.INT64: -(2**63),
    GGUFValueType.FLOAT64: 0.1,
}


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_bytes(shape: tuple[int, ...], type: GGMLQuantizationType) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(int(type))
    block_values, block_bytes = GGML_QUANT_SIZES[type]
    n_bytes = shape[-1] // block_values * block_bytes
    return rng.integers(0, 256, (*shape[:-1], n_bytes), dtype=np.uint8)


@pytest.fixture(params=[2, 3])
def written(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file with a value of every type, in both versions, which differ in nothing else."""
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    for type, value in SCALARS.items():
        writer.add_key_value(f"scalar.{type.name}", value, type)
        writer.add_key_value(f"array.{type.name}", [value] * 3, GGUFValueType.ARRAY, sub_type=type)
    writer.add_array("array.nested", [[1, 2], [3], [4, 5, 6]])
    writer.add_tensor("a", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    writer.add_tensor("b", np.arange(3, dtype=np.float16))
    finish(writer)
    contents = path.read_bytes()
    path.write_bytes(contents[:4] + struct.pack("<I", request.param) + contents[8:])
    return path


def test_metadata_of_every_type_comes_back(written: Path) -> None:
    with GGUFFile.open(written) as file:
        for type, value in SCALARS.items():
            found = file.metadata[f"scalar.{type.name}"]
            assert (found, found.__class__) == (value, value.__class__)
            assert file.metadata[f"array.{type.name}"] == [value] * 3
        assert file.metadata["array.nested"] == [[1, 2], [3], [4, 5, 6]]
        assert file.metadata["general.architecture"] == "llama"
        assert list(file.metadata)[:2] == ["general.architecture", "scalar.UINT8"]


def test_file_facts(written: Path) -> None:
    with GGUFFile.open(str(written)) as file:
        assert file.path == written
        assert file.shards == (written,)
        assert file.version == written.read_bytes()[4]
        assert file.n_bytes == written.stat().st_size
        assert list(file.tensors) == ["a", "b"]


def test_tensor_bytes_are_where_the_directory_says(written: Path) -> None:
    with GGUFFile.open(written) as file:
        info = file.tensors["a"]
        assert (info.shape, info.type, info.shard) == ((2, 3, 4), GGMLQuantizationType.F32, 0)
        contents = written.read_bytes()[info.offset : info.offset + info.n_bytes]
        assert contents == np.arange(24, dtype=np.float32).tobytes()
        assert file.tensor("a").data.tobytes() == contents


def test_tensors_are_read_only_views_of_one_mapping(written: Path) -> None:
    with GGUFFile.open(written) as file:
        data = file.tensor("a").data
        assert np.shares_memory(data, file.tensor("a").data)
        with pytest.raises(ValueError, match="read-only"):
            data[0] = 0


def test_views_outlive_close(written: Path) -> None:
    with GGUFFile.open(written) as file:
        data = file.tensor("b").data
    assert data.view(np.float16).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="closed"):
        file.tensor("b")


@pytest.mark.parametrize("type", GGML_QUANT_SIZES, ids=lambda type: type.name)
@pytest.mark.parametrize("shape", [(256,), (3, 512), (2, 3, 256), (2, 1, 3, 256)])
def test_tensors_of_every_type_and_rank(
    tmp_path: Path, type: GGMLQuantizationType, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "model.gguf"
    first, second = random_bytes((64,), GGMLQuantizationType.F32), random_bytes(shape, type)
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("first", first, raw_dtype=GGMLQuantizationType.F32)
    writer.add_tensor("second", second, raw_dtype=type)
    finish(writer)
    with GGUFFile.open(path) as file:
        tensor = file.tensor("second")
        assert (tensor.name, tensor.type, tensor.shape) == ("second", type, shape)
        assert tensor.data.dtype == np.uint8
        np.testing.assert_array_equal(tensor.data, second)
        np.testing.assert_array_equal(file.tensor("first").data, first)


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_alignment_of_the_file_itself(tmp_path: Path, alignment: int) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_custom_alignment(alignment)
    tensors = {name: np.arange(n, dtype=np.int8) for name, n in (("a", 5), ("b", 33), ("c", 1))}
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    finish(writer)
    with GGUFFile.open(path) as file:
        for name, values in tensors.items():
            assert file.tensors[name].offset % alignment == 0
            assert file.tensor(name).data.tolist() == values.tolist()


def test_empty_arrays_and_strings(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    keys = [
        key("none", ARRAY, array(STRING, 0, b"")),
        key("empty", STRING, b"\0" * 8),
        key("nested", ARRAY, array(ARRAY, 1, array(GGUFValueType.INT8, 0, b""))),
    ]
    path.write_bytes(RawGGUF(keys).build())
    with GGUFFile.open(path) as file:
        assert file.metadata == {"none": [], "empty": "", "nested": [[]]}
        assert not file.tensors


def test_directory_need_not_be_in_the_order_of_the_data(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    entries = [entry("second", (8,), offset=32), entry("first", (8,), offset=0)]
    path.write_bytes(RawGGUF(entries=entries, data=b"1" * 32 + b"2" * 32).build())
    with GGUFFile.open(path) as file:
        assert file.tensor("first").data.tobytes() == b"1" * 32
        assert file.tensor("second").data.tobytes() == b"2" * 32


def split_model(folder: Path) -> list[Path]:
    """Five one-row tensors, ``t0`` to ``t4`` holding their number, in three shards."""
    writer = GGUFWriter(folder / "model.gguf", "llama", split_max_tensors=2)
    writer.add_uint32("llama.block_count", 7)
    for i in range(5):
        writer.add_tensor(f"t{i}", np.full((1, 40), i, dtype=np.float32))
    finish(writer)
    return sorted(folder.iterdir())


def test_the_beginning_of_a_file_is_enough_or_says_how_much_is_missing(written: Path) -> None:
    contents = written.read_bytes()

    def needed(n_bytes: int) -> int:
        """0 where so many are enough."""
        try:
            found = read_header(contents[:n_bytes], written, len(contents))
        except IncompleteHeader as more:
            return more.needed_bytes
        assert found == read_header(contents, written)
        return 0

    steps = [4]
    while more := needed(steps[-1]):
        assert steps[-1] < more <= len(contents)
        assert needed(more - 1) == more  # not one less
        steps.append(more)
    assert len(steps) > 20
    with GGUFFile.open(written) as file:
        assert steps[-1] <= min(info.offset for info in file.tensors.values())


def test_split_model_opens_by_any_shard(tmp_path: Path) -> None:
    paths = split_model(tmp_path)
    assert paths[0].name == "model-00001-of-00003.gguf"
    for path in paths:
        with GGUFFile.open(path) as file:
            assert file.path == path
            assert file.shards == tuple(paths)
            assert file.get("llama.block_count", int) == 7
            assert file.n_bytes == sum(path.stat().st_size for path in paths)
            assert [file.tensors[f"t{i}"].shard for i in range(5)] == [0, 0, 1, 1, 2]
            for i in range(5):
                assert (file.tensor(f"t{i}").data.view(np.float32) == i).all()


def test_shard_name_without_split_metadata_is_an_ordinary_file(tmp_path: Path) -> None:
    path = tmp_path / "model-00002-of-00003.gguf"
    path.write_bytes(RawGGUF().build())
    with GGUFFile.open(path) as file:
        assert file.shards == (path,)


def test_get_returns_the_type_asked_for(written: Path) -> None:
    with GGUFFile.open(written) as file:
        assert file.get("scalar.INT8", int) == -128
        assert file.get("scalar.FLOAT32", float) == 0.375
        assert file.get("scalar.BOOL", bool) is True
        assert file.get("general.architecture", str) == "llama"
        assert file.get("array.UINT8", list) == [255] * 3
        assert file.get("absent", int, 5) == 5
        assert file.get("absent", int, None) is None


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("scalar.INT8", float, "of type int"),
        ("scalar.FLOAT32", int, "of type float"),
        ("scalar.BOOL", int, "of type bool"),
        ("array.STRING", str, "of type list"),
        ("absent", int, "missing"),
    ],
)
def test_get_of_another_type_names_file_key_and_types(
    written: Path, name: str, kind: type[Any], found: str
) -> None:
    with GGUFFile.open(written) as file, pytest.raises(ModelFormatError) as caught:
        file.get(name, kind)
    assert str(caught.value) == (
        f"{written}: metadata key '{name}' is {found}; type {kind.__name__} was expected"
    )


def test_default_does_not_excuse_a_wrong_type(written: Path) -> None:
    with GGUFFile.open(written) as file, pytest.raises(ModelFormatError, match="of type int"):
        file.get("scalar.INT8", str, "default")


def test_missing_tensor_is_named(written: Path) -> None:
    with GGUFFile.open(written) as file, pytest.raises(ModelFormatError, match=r"'output\.weight'"):
        file.tensor("output.weight")


@pytest.mark.parametrize("name", ["absent.gguf", "a\0b.gguf", "x" * 5000])
def test_path_that_leads_nowhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot be opened"):
        GGUFFile.open(tmp_path / name)
