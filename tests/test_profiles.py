"""Profiles: counting, mixing, comparing, and files that may hold anything."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expert_files import EXPERTS, LAYERS, write_experts

from moestream.errors import MoestreamError, ProfileError
from moestream.gguf import GGUFFile
from moestream.profiles import Fingerprint, Profile, UseCounter, mix, read_profile, write_profile
from moestream.profiles.analysis import coverage_curve, layer_uses, overlaps, similarity
from moestream.traces.format import DECODE, PREFILL, TraceHeader, read_trace
from moestream.traces.to_profile import count_trace
from moestream.traces.writer import TraceWriter

MODEL = Fingerprint("moe", 3, 4, 2, {1: 100, 2: 200}, "ab" * 32)


def profile(rows: list[list[float]], **changes: Any) -> Profile:
    """Layers 1 and 2, of four experts each."""
    decayed = np.array(rows, float)
    values: dict[str, Any] = {
        "name": "a",
        "model": "m.gguf",
        "fingerprint": MODEL,
        "tokens": 10,
        "uses": np.ceil(decayed).astype(np.int64),
        "decayed": decayed,
    }
    return Profile(**values | changes)


ONE = [[3.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]
OTHER = [[0.0, 0.0, 10.0, 30.0], [40.0, 0.0, 0.0, 0.0]]


def test_counts_are_those_of_the_definition() -> None:
    chance = np.random.default_rng(2)
    ids = np.stack([chance.permutation(6)[:2] for _ in range(300)]).astype(np.int32)
    counter = UseCounter([4], 6, half_life=20.0)
    for bounds in (
        (0, 100),
        (100, 101),
        (101, 102),
        (102, 180),
        *((n, n + 1) for n in range(180, 300)),
    ):
        counter.add(4, ids[slice(*bounds)])
    counted = counter.profile("a", "m", MODEL, {})
    uses, decayed = [0] * 6, [0.0] * 6
    for token, row in enumerate(ids):
        for expert in row:
            uses[expert] += 1
            decayed[expert] += 0.5 ** ((299 - token) / 20)
    assert counted.tokens == 300
    assert counted.uses.tolist() == [uses]
    np.testing.assert_allclose(counted.decayed, [decayed])


def test_a_trace_counts_every_token_of_every_layer(tmp_path: Path) -> None:
    header = TraceHeader(3, 4, 2, {1: 100, 2: 200}, model="m.gguf", arch="moe")
    with TraceWriter(tmp_path / "t.csv", header) as writer:
        for layer in (1, 2):
            writer.record(0, PREFILL, 0, layer, [[0, 1], [0, layer]], np.ones((2, 2)))
        for layer in (1, 2):
            writer.record(0, DECODE, 2, layer, [3, 0], [1, 1])
        writer.record(1, PREFILL, 2, 1, [[3, 2]], [[1, 1]])  # a new turn at the same position
    counted = count_trace(read_trace(tmp_path / "t.csv"), "a", half_life=1)
    assert counted.fingerprint == Fingerprint("moe", 3, 4, 2, {1: 100, 2: 200})
    assert counted.tokens == 4
    assert counted.uses.tolist() == [[3, 2, 1, 2], [3, 1, 1, 1]]
    assert counted.decayed[1].tolist() == [1 + 0.5 + 0.25, 0.25, 0.5, 1]


def test_rates_are_uses_a_token_by_key() -> None:
    rates = profile([[3.0, 1.0, 0.0, 0.0], [0.0] * 4]).key_rates()
    assert rates.tolist() == [0] * 4 + [1.5, 0.5, 0, 0] + [0] * 4


def test_a_mixture_goes_by_weight_and_not_by_length() -> None:
    one, long = profile(ONE), profile([[1000 * x for x in row] for row in OTHER], name="b")
    mixed = mix([(one, 1), (long, 3)], "both")
    np.testing.assert_allclose(mixed.shares()[0], [0.1875, 0.0625, 0.1875, 0.5625])
    assert mixed.uses[0].tolist() == [3, 1, 10_000, 30_000]
    assert mixed.tokens == 20
    assert mixed.options == {"merged": ["a:1", "b:3"]}
    alone = mix([(one, 5)], "alone")
    np.testing.assert_allclose(alone.decayed, one.decayed)


def test_a_mixture_of_two_models_is_refused() -> None:
    bigger = Fingerprint("moe", 3, 4, 1, {1: 100, 2: 200})
    with pytest.raises(ProfileError, match="profile b is not of the same model as a: num_experts_"):
        mix([(profile(ONE), 1), (profile(ONE, name="b", fingerprint=bigger), 1)], "c")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "other"}, "architecture is 'moe' there and 'other' here"),
        ({"num_layers": 4}, "num_layers"),
        ({"num_experts": 8}, "num_experts is"),
        ({"num_experts_per_tok": 1}, "num_experts_per_tok"),
        ({"expert_bytes": {1: 100, 2: 100}}, "another quantisation"),
        ({"expert_bytes": {1: 100}}, "another quantisation"),
        ({"tensors_sha256": "cd" * 32}, "the tensors differ"),
    ],
)
def test_what_tells_models_apart_is_named(changes: dict[str, Any], words: str) -> None:
    fields = ("architecture", "num_layers", "num_experts", "num_experts_per_tok", "expert_bytes")
    other = Fingerprint(**{name: getattr(MODEL, name) for name in fields} | changes)
    assert words in str(MODEL.difference(other))
    with pytest.raises(ProfileError, match=r"profile a is of m\.gguf, not of n\.gguf"):
        profile(ONE).require(other, "n.gguf")


def test_a_model_without_a_hash_is_compared_by_the_rest() -> None:
    known = ("moe", 3, 4, 2, {1: 100, 2: 200})
    assert MODEL.difference(Fingerprint(*known)) is None
    assert Fingerprint(*known).difference(MODEL) is None


def test_a_file_has_one_fingerprint_however_it_is_split(tmp_path: Path) -> None:
    found = []
    for shards, width in ((1, 48), (3, 48), (1, 64)):
        folder = tmp_path / f"{shards}-{width}"
        folder.mkdir()
        with GGUFFile.open(write_experts(folder / "m.gguf", shards=shards, width=width)) as file:
            # What the small file lacks, a model's has.
            keys = {"llama.block_count": 3, "llama.expert_used_count": 2}
            file.metadata = {**file.metadata, **keys}
            found.append(Fingerprint.of(file))
    whole, split, wider = found
    assert whole == split
    assert (whole.num_experts, list(whole.expert_bytes)) == (EXPERTS, list(LAYERS))
    assert whole.tensors_sha256 != wider.tensors_sha256


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.json"
    options = {"prompts": 1, "files": ["perché.txt"]}
    written = write_profile(profile(ONE, options=options, half_life=7.5), path)
    read = read_profile(path, "b")
    assert (read.name, read.model, read.tokens, read.half_life) == ("b", "m.gguf", 10, 7.5)
    assert read.fingerprint == MODEL
    assert read.saved == written.saved != ""
    assert read.options == options
    np.testing.assert_array_equal(read.uses, written.uses)
    np.testing.assert_allclose(read.decayed, written.decayed, rtol=1e-5)
    assert list(path.parent.iterdir()) == [path]
    assert len(path.read_text().splitlines()) == 12  # a key or a layer a line


def test_nothing_counted_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no token was routed"):
        write_profile(profile([[0.0] * 4] * 2, tokens=0), tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_profile(profile(ONE), path)
    old = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"fsync": (os, "fsync", fail), "replace": (Path, "replace", fail)}[broken])
    with pytest.raises(ProfileError, match=r"a\.json: cannot be written: No space left"):
        write_profile(profile(OTHER), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "a.json"
    write_profile(profile(ONE), path)
    old = path.read_bytes()
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_profile(profile(OTHER), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProfileError, match=r"file/a\.json: cannot be written: "):
        write_profile(profile(ONE), tmp_path / "file" / "a.json")


Change = Callable[[dict[str, Any]], Any]


def put(value: Any, *keys: Any) -> Change:
    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


LAYER = ("layers", 0)
HOSTILE: list[tuple[str, Change, str]] = [
    ("no format", lambda d: d.pop("format"), "not a profile"),
    ("other format", put("trace", "format"), "not a profile"),
    ("new version", put(2, "version"), "version 2; this program knows version 1"),
    ("true version", put(True, "version"), "version True"),
    ("text version", put("1", "version"), "version '1'"),
    ("no model", lambda d: d.pop("model"), "model is 'None', expected dict"),
    ("no layers", put([], "layers"), "0 layers"),
    ("layers a number", put(3, "layers"), "layers is '3', expected list"),
    ("a layer a list", put([], *LAYER), "a layer is"),
    ("layer below", put(-1, *LAYER, "layer"), "layer is -1"),
    ("layer beyond", put(3, "layers", 1, "layer"), "layer 3 after"),
    ("layer twice", put(1, "layers", 1, "layer"), "layer 1 after"),
    ("many layers", put(1 << 40, "model", "num_layers"), "num_layers is 1099511627776"),
    ("many experts", put(1 << 40, "model", "num_experts"), "layer 1 has 4 uses, not 1099511627776"),
    ("more a token", put(5, "model", "num_experts_per_tok"), "5 of 4 experts a token"),
    ("size 0", put(0, *LAYER, "expert_bytes"), "expert_bytes is 0"),
    ("size a fraction", put(1.5, *LAYER, "expert_bytes"), "expert_bytes is '1.5', expected int"),
    ("uses short", put([1], *LAYER, "uses"), "layer 1 has 1 uses, not 4"),
    ("uses a number", put(4, *LAYER, "uses"), "uses is '4', expected list"),
    ("uses negative", put(-1, *LAYER, "uses", 0), "uses of layer 1 are not all whole"),
    ("uses a fraction", put(0.5, *LAYER, "uses", 0), "uses of layer 1 are not all whole"),
    ("uses true", put(True, *LAYER, "uses", 0), "uses of layer 1 are not all whole"),
    ("uses huge", put(10**30, *LAYER, "uses", 0), "uses of layer 1 are not all whole"),
    ("decayed text", put("1", *LAYER, "decayed", 0), "decayed of layer 1 is '1'"),
    ("decayed negative", put(-0.5, *LAYER, "decayed", 0), "decayed of layer 1 is '-0.5'"),
    ("decayed null", put(None, *LAYER, "decayed", 0), "decayed of layer 1 is 'None'"),
    ("half-life 0", put(0, "half_life"), "half_life is '0'"),
    ("half-life null", put(None, "half_life"), "half_life is 'None', expected float"),
    ("tokens 0", put(0, "tokens"), "tokens is 0"),
    ("hash short", put("ab", "model", "tensors_sha256"), "not 64 hexadecimal"),
    ("hash a list", put([], "model", "tensors_sha256"), "not 64 hexadecimal"),
    ("name a number", put(7, "model", "name"), "name is '7', expected str"),
    ("options a list", put([], "options"), "options is '[]', expected dict"),
    ("never used", lambda d: [row.update(decayed=[0] * 4) for row in d["layers"]], "ever used"),
]


@pytest.mark.parametrize(
    ("change", "message"), [case[1:] for case in HOSTILE], ids=[c[0] for c in HOSTILE]
)
def test_a_damaged_file_is_an_error_that_says_what(
    change: Change, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    write_profile(profile(ONE), path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ProfileError) as caught:
        read_profile(path, "a")
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"damaged, or not a profile \("),
        (b"\xff\xfe\x00", r"damaged, or not a profile \("),
        (b"[" * 100_000, r"damaged, or not a profile \("),
        (b"[]", "not a profile"),
        (b"null", "not a profile"),
        (b'{"format": "moestream profile", "version": NaN}', "NaN is no JSON number"),
        (b'{"version": ' + b"9" * 5000 + b"}", r"damaged, or not a profile \("),
    ],
)
def test_what_is_no_profile_is_an_error(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(ProfileError, match=message):
        read_profile(path, "a")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_counts_that_are_no_numbers_are_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_profile(profile(ONE), path)
    path.write_text(path.read_text().replace('"decayed": [3.0', f'"decayed": [{value}'))
    with pytest.raises(ProfileError, match=r"is no JSON number|decayed of layer 1 is 'inf'"):
        read_profile(path, "a")


def test_no_cut_and_no_flipped_byte_is_more_than_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_profile(profile(ONE), path)
    data = path.read_bytes()
    for end in range(0, len(data) - 2, 7):
        path.write_bytes(data[:end])
        with pytest.raises(ProfileError):
            read_profile(path, "a")
    for place in range(0, len(data), 5):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :])
        try:
            read = read_profile(path, "a")
        except MoestreamError:
            continue
        assert np.isfinite(read.key_rates()).all()


def test_missing_and_too_big_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read: No such file"):
        read_profile(tmp_path / "a.json", "a")
    with pytest.raises(ProfileError, match="cannot be read: Is a directory"):
        read_profile(tmp_path, "a")
    with (tmp_path / "big").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(ProfileError, match="bigger than 64 MiB"):
        read_profile(tmp_path / "big", "a")


def test_layers_tell_entropy_coverage_and_the_hottest() -> None:
    first, second = layer_uses(profile([[2.0, 2.0, 4.0, 0.0], [5.0, 0, 0, 0]]), 2)
    assert (first.layer, first.entropy, first.coverage) == (1, 1.5, 0.5)
    assert first.hottest == [(2, 0.5), (0, 0.25)]
    assert (second.layer, second.entropy, second.coverage) == (2, 0.0, 1.0)
    assert second.hottest == [(0, 1.0)]


def test_the_coverage_curve_is_the_mean_of_the_layers() -> None:
    assert coverage_curve(profile(ONE)).tolist() == [0, 0.5, 0.75, 0.875, 1]


def test_what_one_misses_with_the_others_experts() -> None:
    one, other = profile(ONE), profile(OTHER)
    few, all_of_it = overlaps(one, other, [100, 10_000])
    # 100 bytes hold one expert of layer 1: 0 of one, 3 of the other.
    assert few.shared == 0
    assert few.misses == ((1 - 0.375, 1.0), (1.0, 1 - 0.375))
    assert all_of_it.misses[0] == (0.0, 1 - 0.125)
    assert all_of_it.shared == pytest.approx(1 / 8)
    assert similarity(one, other) == [0.0, 0.25]
    assert similarity(one, one) == [1.0, 1.0]
