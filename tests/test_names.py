"""One rule of comparing names, and what removing takes: that and nothing else."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run
from fake_hub import FakeHub, fake_hub

from moestream import demo
from moestream.folders import find_name, replacing
from moestream.hub import local, parse_reference, repository_folder

SMALL = "m-Q4_K_M.gguf"
LARGE = "X.Q8_0.GGUF"


@pytest.fixture
def hub(tmp_path: Path, alphabet: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub({SMALL: alphabet.read_bytes(), LARGE: alphabet.read_bytes()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("MOESTREAM_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("MOESTREAM_CONFIG", str(tmp_path / "config"))
        yield hub


def test_the_rule() -> None:
    assert find_name("a", ["A", "b"]) == "A"
    assert find_name("a", ["A", "a"]) == "a"
    assert find_name("a", ["A", "Á"]) == "A"
    assert find_name("aB", ["AB", "ab"]) is None
    assert find_name("c", ["A"]) is None


def test_pull_path_generate_and_rm_agree_on_capitals(hub: FakeHub) -> None:
    assert run("models", "pull", "hf:org/model:q8_0").returncode == 0
    assert run("models", "pull", "hf:org/model").returncode == 0
    for name in ("hf:org/model:Q8_0", "HF:Org/MODEL:q8_0", "hf:org/model:x.q8_0.gguf"):
        assert run("models", "path", name).stdout.strip().endswith(LARGE), name
    assert run("inspect", "hf:org/model:Q8_0").returncode == 0
    assert run("models", "rm", "hf:org/model:Q4_K_M", "--yes").returncode == 0
    assert [path.name for path in repository_folder("org/model").glob("*.[gG]*")] == [LARGE]
    assert run("models", "rm", "hf:org/model:x.Q8_0.gguf", "--yes").returncode == 0
    assert not repository_folder("org/model").exists()


def test_names_of_the_catalogue(hub: FakeHub, alphabet: Path, tmp_path: Path) -> None:
    assert run("models", "add", "mine", alphabet).returncode == 0
    assert run("models", "path", "MINE").stdout.strip() == str(alphabet)
    assert run("models", "rm", "Mine", "--yes").returncode == 0
    assert run("models", "path", "mine").returncode == 1
    assert alphabet.exists()


def test_rm_leaves_what_it_does_not_name(hub: FakeHub) -> None:
    folder = repository_folder("org/model")
    (folder / "sub").mkdir(parents=True)
    part = f"{SMALL}.{'0' * 12}.part"
    other = f"{LARGE}.{'0' * 12}.part"
    for name in (part, other, "notes.txt", "sub/mine.bin"):
        (folder / name).write_bytes(b"12345")
    assert local.remove(parse_reference("hf:org/model:Q4_K_M")) == 5
    assert not (folder / part).exists()
    assert (folder / other).exists()
    assert local.remove(parse_reference("hf:org/model:Q8_0")) == 5
    assert (folder / "notes.txt").exists()
    assert (folder / "sub" / "mine.bin").exists()


def test_shards_of_a_download_that_was_killed_can_be_removed(hub: FakeHub) -> None:
    folder = repository_folder("org/model")
    folder.mkdir(parents=True)
    (folder / "big-Q4_K_M-00001-of-00003.gguf").write_bytes(b"1")
    (folder / f"big-Q4_K_M-00002-of-00003.gguf.{'0' * 12}.part").write_bytes(b"22")
    (folder / ".lock").write_bytes(b"")
    (folder / f"..moestream.json.{2**22 + 1}.tmp").write_bytes(b"{")
    done = run("models", "rm", "hf:org/model", "--yes")
    assert done.returncode == 0, done.stderr
    assert not folder.parent.exists()


def test_a_record_of_what_was_removed_is_not_believed(hub: FakeHub) -> None:
    assert run("models", "pull", "hf:org/model").returncode == 0
    assert run("models", "pull", "hf:org/model:Q8_0").returncode == 0
    assert run("models", "rm", "hf:org/model", "--yes").returncode == 0
    path = repository_folder("org/model") / SMALL
    path.write_bytes(b"?" * len(hub.files[SMALL]))
    assert run("models", "pull", "hf:org/model").returncode == 0
    assert path.read_bytes() == hub.files[SMALL]


def test_rm_of_the_demo_takes_its_source_and_leftovers(hub: FakeHub, tmp_path: Path) -> None:
    sources, models = tmp_path / "cache" / "sources", tmp_path / "cache" / "models"
    (sources / "download.tmp" / "x").mkdir(parents=True)
    models.mkdir()
    (sources / "download.tmp" / "x" / "half.whl").write_bytes(b"1234")
    (sources / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"12345")
    name = demo.demo_path().name
    (models / f"{name}.tmp").write_bytes(b"123456")
    (models / "other.gguf").write_bytes(b"keep")
    done = run("models", "rm", "demo", "--yes")
    assert done.returncode == 0, done.stderr
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert left == [models / "other.gguf"]


def test_a_broken_link_is_called_one(hub: FakeHub, tmp_path: Path) -> None:
    link = tmp_path / "model.gguf"
    link.symlink_to("../blobs/gone")
    for words in (["generate", link, "-p", "x"], ["inspect", link], ["models", "add", "x", link]):
        done = run(*words)
        assert done.returncode == 1
        assert f"{link} is a link to ../blobs/gone, which is not there" in done.stderr
    folder = repository_folder("org/model")
    folder.mkdir(parents=True)
    (folder / SMALL).symlink_to("/nowhere")
    assert "is a link to /nowhere" in run("inspect", "hf:org/model").stderr
    assert run("models", "list").returncode == 0
    assert run("models", "rm", "hf:org/model", "--yes").returncode == 0
    assert not os.path.lexists(folder / SMALL)


def test_what_is_no_gguf_file_is_called_what_it_is(tmp_path: Path, alphabet: Path) -> None:
    whole = alphabet.read_bytes()
    cases = {
        "m.gguf.part1of2": (whole[:100], "piece 1 of 2 of a file that was cut by bytes"),
        "m.gguf.part2of2": (whole[100:], "cat m.gguf.* > m.gguf"),
        "m.gguf-split-a": (whole[:100], "cat m.gguf-* > m.gguf"),
        "m.gguf.001": (whole[:100], "a piece of a file"),
        "p.gguf": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "w.gguf": (b"\n<!DOCTYPE html><html>", "a web page"),
        "z.gguf": (b"PK\x03\x04" + bytes(60), "a ZIP archive"),
        "old.gguf": (b"tjgg" + bytes(60), "convert it again"),
    }
    for name, (data, complaint) in cases.items():
        (tmp_path / name).write_bytes(data)
        done = run("generate", tmp_path / name, "--raw", "-p", "x")
        assert done.returncode == 1
        assert complaint in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_shards_are_found_whatever_their_case(tmp_path: Path) -> None:
    from moestream.errors import ModelFormatError
    from moestream.gguf import GGUFFile

    first = tmp_path / "M-00001-of-00002.GGUF"
    split = tmp_path / "m.gguf"
    assert not split.exists()
    write_shard(first, 0)
    with pytest.raises(ModelFormatError, match="this shard is missing, 1 of 2"):
        GGUFFile.open(first)
    write_shard(tmp_path / "m-00002-of-00002.gguf", 1)
    with GGUFFile.open(first) as file:
        assert [path.name for path in file.shards] == [first.name, "m-00002-of-00002.gguf"]


def write_shard(path: Path, number: int) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_uint16("split.no", number)
    writer.add_uint16("split.count", 2)
    writer.add_int32("split.tensors.count", 2)
    import numpy as np

    writer.add_tensor(f"t{number}", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    leftover = tmp_path / f".a.json.{ended.pid}.tmp"
    leftover.write_text("half")
    with replacing(tmp_path / "a.json") as file:
        file.write("{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json"]
