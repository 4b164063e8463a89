"""Files that lie: each ends in one clear error, quickly, and without memory on the file's word."""

import os
import re
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from gguf.constants import GGMLQuantizationType, GGUFValueType
from gguf_bytes import ARRAY, STRING, UINT32, RawGGUF, array, entry, key, text, u32, u64
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moestream.errors import ModelFormatError, UnsupportedQuantError
from moestream.gguf import GGUFFile

T = GGMLQuantizationType
BOOL, UINT8 = GGUFValueType.BOOL, GGUFValueType.UINT8


def sound_file() -> RawGGUF:
    """Return a small file with something of everything in it."""
    return RawGGUF(
        keys=[
            key("general.architecture", STRING, text("llama")),
            key("general.alignment", UINT32, u32(32)),
            key("flag", BOOL, b"\1"),
            key("tokens", ARRAY, array(STRING, 3, text("a") + text("è") + text(""))),
            key("scores", ARRAY, array(GGUFValueType.FLOAT32, 2, bytes(8))),
            key("nested", ARRAY, array(ARRAY, 2, 2 * array(UINT8, 1, b"\7"))),
        ],
        entries=[
            entry("blk.0.w", (32, 2), T.Q4_0, 0),
            entry("blk.0.b", (3,), T.F32, 64),
            entry("blk.1.w", (256, 1, 2), T.Q6_K, 96),
        ],
        data=bytes(96 + 2 * 210),
    )


def with_keys(*keys: bytes) -> bytes:
    return RawGGUF(list(keys)).build()


def with_tensors(*entries: bytes, data: bytes = bytes(1024)) -> bytes:
    return RawGGUF(entries=list(entries), data=data).build()


def nested(depth: int) -> bytes:
    payload = array(UINT8, 1, b"\0")
    for _ in range(depth - 1):
        payload = array(ARRAY, 1, payload)
    return key("deep", ARRAY, payload)


HUGE = 2**62
MANY = 2**23
# What is wrong, the file, and what the message must say besides the file's name.
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "text": (b"Dear diary, today I", r"not a GGUF file: it starts with 'Dear diary, toda'"),
    "magic alone": (b"GGUF", "4 bytes .* at byte 4, but the file ends at 4"),
    "half a magic": (b"GG", "not a GGUF file"),
    "version 0": (RawGGUF(version=0).build(), "GGUF version 0; versions 2 and 3"),
    "version 1": (RawGGUF(version=1).build(), "GGUF version 1; versions 2 and 3"),
    "version 4": (RawGGUF(version=4).build(), "GGUF version 4; versions 2 and 3"),
    "big-endian": (RawGGUF(version=3 << 24).build(), "big-endian"),
    "key count": (RawGGUF(n_keys=HUGE).build(), f"{HUGE} metadata keys and 0 tensors"),
    "tensor count": (RawGGUF(n_tensors=HUGE).build(), f"0 metadata keys and {HUGE} tensors"),
    "one key too many": (RawGGUF(n_keys=1, data=bytes(64)).build(), "metadata key 0 of 1: .*0 byt"),
    "key length": (with_keys(u64(HUGE), bytes(64)), f"key 0 of 2: its name is {HUGE} bytes"),
    "key past the end": (with_keys(u64(999), bytes(64)), r"key 0 of 2: 999 bytes \(a string\)"),
    "key not UTF-8": (with_keys(key(b"\xff\xfe", STRING, text(""))), "key 0 of 1: .*not UTF-8"),
    "duplicate key": (with_keys(*2 * [key("a.b", UINT32, u32(1))]), "key 1 of 2: .*'a.b' is a dup"),
    "value type": (with_keys(key("a.b", 13, u64(0))), "key 'a.b': value type 13 is unknown"),
    "element type": (with_keys(key("a", ARRAY, array(99, 0, b""))), "key 'a': value type 99"),
    "bool": (with_keys(key("a", BOOL, b"\2")), "key 'a': a bool is 2"),
    "bools": (with_keys(key("a", ARRAY, array(BOOL, 3, b"\0\1\7"))), "key 'a': a bool is 7"),
    "string length": (with_keys(key("a", STRING, u64(HUGE))), rf"key 'a': {HUGE} bytes \(a str"),
    "element too long": (
        with_keys(key("a", ARRAY, array(STRING, 2, text("x") + u64(HUGE)))),
        rf"key 'a', string 1 of 2: {HUGE} bytes",
    ),
    "elements without end": (
        RawGGUF([key("a", ARRAY, array(STRING, 3, text("x" * 20) + text("y")))]).header(),
        "key 'a', string 2 of 3: 8 bytes",
    ),
    "string count": (with_keys(key("a", ARRAY, array(STRING, MANY, b""))), f"{MANY} strings"),
    "array count": (with_keys(key("a", ARRAY, array(ARRAY, MANY, b""))), f"{MANY} arrays"),
    "number count": (with_keys(key("a", ARRAY, array(UINT32, MANY, b""))), f"{MANY} values of ty"),
    "absurd count": (with_keys(key("a", ARRAY, array(UINT8, HUGE, b""))), f"array of {HUGE} elem"),
    "deep arrays": (with_keys(nested(5)), "key 'deep': arrays are nested more than 4 deep"),
    "very deep arrays": (with_keys(nested(10_000)), "nested more than 4 deep"),
    "alignment 0": (with_keys(key("general.alignment", UINT32, u32(0))), "alignment': 0; a power"),
    "alignment 24": (with_keys(key("general.alignment", UINT32, u32(24))), "alignment': 24; a po"),
    "alignment text": (with_keys(key("general.alignment", STRING, text("32"))), "': '32'; a power"),
    "alignment bool": (with_keys(key("general.alignment", BOOL, b"\1")), "': True; a power"),
    "tensor without name": (with_tensors(entry("")), "tensor 0 of 1: its name is 0 bytes long"),
    "duplicate tensor": (with_tensors(entry("a.w"), entry("a.w", offset=128)), "'a.w' is a dupl"),
    "no dimensions": (with_tensors(entry("a.w", ())), "'a.w': 0 dimensions; 1 to 4"),
    "five dimensions": (with_tensors(entry("a.w", (1,) * 5)), "'a.w': 5 dimensions; 1 to 4"),
    "dimension count": (with_tensors(entry("a.w", n_dims=2**31)), "'a.w': 2147483648 dimensions"),
    "dimension 0": (with_tensors(entry("a.w", (32, 0))), r"'a.w': shape \(0, 32\) has 0 values"),
    "dimension -1": (with_tensors(entry("a.w", (2**64 - 1,))), r"shape \(18446744073709551615,\)"),
    "overflow": (with_tensors(entry("a.w", (2**32, 2**32))), f"has {2**64} values"),
    "overflow of bytes": (
        with_tensors(entry("a.w", (2**62,))),
        f"to {2**64 + 64}, but the file ends",
    ),
    "part of a block": (
        with_tensors(entry("a.w", (48, 2), T.Q4_0)),
        r"'a.w': shape \(2, 48\): a row of 48 values is not a whole number of Q4_0 blocks of 32",
    ),
    "past the end": (
        with_tensors(entry("a.w", (512,)), entry("b.w", (32,), offset=2048)),
        r"tensor 'a.w': lies at bytes 96 to 2144, but the file ends at 1120",
    ),
    "offset far out": (with_tensors(entry("a.w", offset=2**64 - 32)), "'a.w': lies at bytes 18446"),
    "misaligned": (with_tensors(entry("a.w", offset=8)), "'a.w': lies at .* alignment of 32"),
    "overlapping": (
        with_tensors(entry("a.w", (64,)), entry("b.w", (32,), offset=224)),
        r"'b.w': lies at bytes 320 to 448, but 'a.w' before it ends only at 352",
    ),
    "inside another": (
        with_tensors(entry("a.w", (64,)), entry("b.w", (8,), offset=32)),
        r"'b.w': lies at bytes 128 to 160, but 'a.w' before it ends only at 352",
    ),
    "same place": (with_tensors(entry("a.w"), entry("b.w")), "but 'a.w' before it ends only at"),
}


@pytest.mark.parametrize(("contents", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_error_names_file_and_fault(tmp_path: Path, contents: bytes, message: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(contents)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError) as caught:
            GGUFFile.open(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ")
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert peak < 2_000_000


@pytest.mark.parametrize("number", [4, 31, 36, 2**32 - 1])
def test_unknown_tensor_type_is_named(tmp_path: Path, number: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(with_tensors(entry("a.w", type_number=number)))
    with pytest.raises(UnsupportedQuantError, match=rf"'a\.w' has the type number {number}, unkn"):
        GGUFFile.open(path)


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="a directory; a GGUF file was expected"):
        GGUFFile.open(tmp_path)


def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(ModelFormatError, match="not a regular file; a GGUF file was expected"):
        GGUFFile.open(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (key("a", STRING, u64(3 << 30)), "largest sane header ends at 268435456"),
        (key("a", ARRAY, array(STRING, 1, u64(3 << 30))), "largest sane header ends at 268435456"),
        (key("a", ARRAY, array(UINT8, 3 << 30, b"")), "array of 3221225472 elements"),
        (key("a", ARRAY, array(ARRAY, 8, array(UINT8, MANY, b""))), "where 8388600 more are the m"),
    ],
)
def test_claims_that_a_large_file_could_fill(tmp_path: Path, claim: bytes, message: str) -> None:
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:  # sparse: 4 GiB of zeros that take no room
        file.write(RawGGUF([claim]).header())
        file.truncate(4 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError, match=message):
            GGUFFile.open(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_every_truncation(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(sound_file().build())
    GGUFFile.open(path).close()
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(ModelFormatError):
            GGUFFile.open(path)


def survives(path: Path, contents: bytes) -> None:
    """Either the file opens and each tensor can be read, or one of our two errors comes out."""
    path.write_bytes(contents)
    with suppress(ModelFormatError, UnsupportedQuantError), GGUFFile.open(path) as file:
        for name in file.tensors:
            assert len(file.tensor(name).data.tobytes()) == file.tensors[name].n_bytes


@pytest.mark.parametrize("change", [lambda b: b ^ 1, lambda b: b ^ 0x80, lambda b: 255])
def test_every_changed_byte(tmp_path: Path, change: Callable[[int], int]) -> None:
    sound = sound_file()
    for position in range(len(sound.header())):
        contents = bytearray(sound.build())
        contents[position] = change(contents[position])
        survives(tmp_path / "model.gguf", bytes(contents))


WORDS = st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1]).map(u64)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 480), st.integers(0, 12), WORDS | st.binary(max_size=12)),
        min_size=1,
        max_size=6,
    )
)
def test_spliced_bytes(tmp_path: Path, edits: list[tuple[int, int, bytes]]) -> None:
    contents = sound_file().build()
    for position, n_removed, inserted in edits:
        contents = contents[:position] + inserted + contents[position + n_removed :]
    survives(tmp_path / "model.gguf", contents)


# Split models.


def split_keys(number: object, count: object, n_tensors: object = 2) -> list[bytes]:
    names = ("split.no", "split.count", "split.tensors.count")
    return [
        key(name, UINT32, u32(value)) if isinstance(value, int) else key(name, STRING, text("x"))
        for name, value in zip(names, (number, count, n_tensors), strict=True)
    ]


def write_shard(
    folder: Path, place: str, keys: list[bytes], tensor: str | None = None, data: bytes = bytes(128)
) -> Path:
    path = folder / f"m-{place}.gguf"
    path.write_bytes(RawGGUF(keys, [entry(tensor)] if tensor else [], data).build())
    return path


def test_missing_shards_are_named(tmp_path: Path) -> None:
    path = write_shard(tmp_path, "00002-of-00003", split_keys(1, 3))
    with pytest.raises(ModelFormatError, match=r"m-00001-of-00003\.gguf: .* missing, 2 of 3 are"):
        GGUFFile.open(path)


@pytest.mark.parametrize("count", [3, 99_999, 2**32 - 1])
def test_shard_whose_name_does_not_fit(tmp_path: Path, count: int) -> None:
    path = write_shard(tmp_path, "00001-of-00002", split_keys(0, count))
    with pytest.raises(ModelFormatError, match=f"shard 1 of {count}, but its name does not end in"):
        GGUFFile.open(path)


def test_renamed_shard(tmp_path: Path) -> None:
    path = write_shard(tmp_path, "00001-of-00002", split_keys(0, 2))
    path = path.rename(tmp_path / "model.gguf")
    with pytest.raises(ModelFormatError, match=r"does not end in -00001-of-00002\.gguf"):
        GGUFFile.open(path)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (split_keys(0, 2), "00002-of-00002.gguf: .* shard 1 of 2, by its name 2 of 2"),
        (split_keys(1, 3), "00002-of-00002.gguf: .* shard 2 of 3, by its name 2 of 2"),
        ([], "00002-of-00002.gguf: .* shard 1 of 1, by its name 2 of 2"),
        (split_keys("x", 2), "'split.no' is 'x'; a count was expected"),
    ],
)
def test_shards_that_disagree(tmp_path: Path, second: list[bytes], message: str) -> None:
    path = write_shard(tmp_path, "00001-of-00002", split_keys(0, 2), "a.w")
    write_shard(tmp_path, "00002-of-00002", second, "b.w")
    with pytest.raises(ModelFormatError, match=message):
        GGUFFile.open(path)


def test_tensor_in_two_shards(tmp_path: Path) -> None:
    path = write_shard(tmp_path, "00001-of-00002", split_keys(0, 2), "a.w")
    write_shard(tmp_path, "00002-of-00002", split_keys(1, 2), "a.w")
    with pytest.raises(ModelFormatError, match=r"00002\.gguf: tensor 'a\.w' is also in .*00001"):
        GGUFFile.open(path)


def test_promised_tensors_are_missing(tmp_path: Path) -> None:
    path = write_shard(tmp_path, "00001-of-00002", split_keys(0, 2, 5), "a.w")
    write_shard(tmp_path, "00002-of-00002", split_keys(1, 2, 5), "b.w")
    with pytest.raises(ModelFormatError, match=r"5 tensors are promised .* 2 shards have 2"):
        GGUFFile.open(path)


def test_damaged_shard_is_named(tmp_path: Path) -> None:
    path = write_shard(tmp_path, "00001-of-00002", split_keys(0, 2), "a.w")
    write_shard(tmp_path, "00002-of-00002", split_keys(1, 2), "b.w", data=bytes(100))
    with pytest.raises(ModelFormatError, match=r"00002-of-00002\.gguf: tensor 'b\.w': lies at"):
        GGUFFile.open(path)
