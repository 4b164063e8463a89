import json
import os
from pathlib import Path

import pytest
from command_line import run

from moestream.backends import default_backend
from moestream.cli.commands.doctor import _advice, _machine_fields
from moestream.cli.commands.version import library_version
from moestream.errors import StorageError
from moestream.machine import disk
from moestream.machine.facts import Disk, Machine
from moestream.machine.processor import instruction_sets
from moestream.streaming.memory import Memory

GIB = 1 << 30


def machine(**changes: object) -> Machine:
    values: dict[str, object] = {
        "system": "Linux 6",
        "processor": "a processor",
        "physical_cores": 4,
        "usable_cores": 8,
        "cpu_flags": ["avx2"],
        "memory": Memory(16 * GIB, 12 * GIB, "the machine"),
        "machine_bytes": 16 * GIB,
        "swap_bytes": 0,
        "locked_limit_bytes": None,
        "open_files_limit": None,
        "models": Disk(Path("/models"), 500 * GIB, 3e9, None),
        "config": Path("/config"),
    }
    return Machine(**(values | changes))  # type: ignore[arg-type]


def test_the_limit_of_macos_is_told_where_there_is_one() -> None:
    assert "GPU may wire" not in dict(_machine_fields(machine()))
    told = dict(_machine_fields(machine(wired_limit_mb=12288)))
    assert told["GPU may wire"].startswith("12288 MB")


def test_a_good_machine_needs_nothing() -> None:
    assert _advice(machine()) == []


@pytest.mark.parametrize(
    ("changes", "text", "command"),
    [
        ({"locked_limit_bytes": 8 << 20}, "only 8.00 MiB may be locked", "memlock unlimited"),
        ({"models": Disk(Path("/m"), 500 * GIB, 1e8, None)}, "reads 95.4 MiB/s", "MOESTREAM_CACHE"),
        ({"models": Disk(Path("/m"), GIB, 3e9, None)}, "1.07 GB free", "MOESTREAM_CACHE"),
        ({"models": Disk(Path("/m"), 500 * GIB, None, "no")}, "be measured: no", "MOESTREAM_CACHE"),
        ({"memory": Memory(4 * GIB, GIB, "cgroup /a")}, "cgroup /a allows 4.00 GiB of", ""),
        ({"usable_cores": 2}, "may run on 2 of 4 cores", "taskset"),
    ],
)
def test_each_lack_has_its_advice(
    changes: dict[str, object], text: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ((told, remedy),) = _advice(machine(**changes))
    assert text in told
    assert command in remedy


def test_doctor_tells_everything_in_json(tmp_path: Path) -> None:
    done = run("doctor", "--no-measure", "--json", env={"MOESTREAM_CACHE": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["machine"]["memory"]["total_bytes"] > 0
    assert report["machine"]["models"]["folder"] == str(tmp_path / "models")
    assert report["used"]["backend"] == default_backend()
    installed = library_version("mlx")
    assert (report["mlx"] or {}).get("version") == installed
    assert installed is None or isinstance(report["mlx"]["metal"], bool)
    assert report["used"]["budget_bytes"] <= report["machine"]["memory"]["total_bytes"]
    text = run("doctor", "--no-measure", env={"MOESTREAM_CACHE": str(tmp_path)}).stdout
    for heading in ("machine\n", "moestream\n", "will be used\n"):
        assert heading in text


def test_the_disk_is_read_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_SAMPLE_BYTES", 4 << 20)
    try:
        speed = disk.read_bandwidth(tmp_path, seconds=0.05)
    except StorageError:
        pytest.skip("this file system cannot be read past the page cache")
    assert speed > 1e6
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model.gguf").write_bytes(bytes(8 << 20))
    assert disk.read_bandwidth(tmp_path, seconds=0.05) > 1e6


def test_a_measurement_that_is_killed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(descriptor: int, pieces: int, seconds: float) -> float:
        assert pieces == 4
        return float(len(list(tmp_path.iterdir())))

    monkeypatch.setattr(disk, "_SAMPLE_BYTES", 4 << 20)
    monkeypatch.setattr(disk, "_measure", look)
    try:
        assert disk.read_bandwidth(tmp_path) == 0
    except StorageError:
        pytest.skip("this file system cannot be read past the page cache")


def test_a_file_system_in_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, flags: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(disk, "_SAMPLE_BYTES", 1 << 20)
    (tmp_path / "model.gguf").write_bytes(bytes(1 << 20))
    monkeypatch.setattr(disk.os, "open", refuse)
    with pytest.raises(StorageError, match="cannot be read past the page cache"):
        disk.read_bandwidth(tmp_path)


def test_flags_of_the_processor(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: x\nflags\t\t: fpu avx2 avx512f sse2\n\nflags : none\n")
    assert instruction_sets(info) == ["avx2", "avx512f"]
    info.write_text("Features\t: fp asimd\n")
    assert instruction_sets(info) == ["asimd"]
    assert instruction_sets(tmp_path / "none") == []
