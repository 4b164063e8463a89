"""What is written for macOS, on this system: its calls are stood in for."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from expert_files import write_experts

from moestream.gguf import GGUFFile
from moestream.machine import disk
from moestream.machine.darwin import sysctl
from moestream.machine.facts import look
from moestream.machine.processor import instruction_sets
from moestream.streaming.reader import ExpertReader
from moestream.streaming.store import ExpertStore

F_NOCACHE = 48
TOLD = {
    "iogpu.wired_limit_mb": "24576",
    "machdep.cpu.brand_string": "Apple M2",
    "hw.optional.AdvSIMD": "1",
    "hw.optional.arm.FEAT_I8MM": "1",
}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What sysctl answers; a name that is not there is an error, told on standard error."""
    told = dict(TOLD)

    def run(asked: list[str], **how: object) -> SimpleNamespace:
        assert asked[:2] == ["/usr/sbin/sysctl", "-n"]
        return SimpleNamespace(stdout=told[asked[2]] + "\n" if asked[2] in told else "")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("moestream.machine.processor._CPUINFO", Path("/no/such/file"))
    return told


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are to be read past the cache, as macOS is told of them."""
    files: list[str] = []

    def control(descriptor: int, command: int, value: int) -> int:
        assert (command, value) == (F_NOCACHE, 1)
        files.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        return 0

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    return files


def test_the_processor_and_the_gpu_are_what_sysctl_says(told: dict[str, str]) -> None:
    machine = look(measure=False)
    assert machine.processor.startswith("Apple M2 (")
    assert (machine.cpu_flags, machine.wired_limit_mb) == (["asimd", "i8mm"], 24576)
    told |= {"hw.optional.arm.FEAT_I8MM": "0", "iogpu.wired_limit_mb": "unlimited"}
    machine = look(measure=False)
    assert (machine.cpu_flags, machine.wired_limit_mb) == (["asimd"], None)
    told.clear()
    assert instruction_sets() == []


def test_other_systems_have_no_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked"))
    assert sysctl("machdep.cpu.brand_string") is None


def test_a_mac_without_the_command_is_no_error(
    told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(asked: list[str], **how: object) -> SimpleNamespace:
        raise FileNotFoundError(asked[0])

    monkeypatch.setattr(subprocess, "run", run)
    assert sysctl("machdep.cpu.brand_string") is None


def test_the_disk_is_measured_past_the_cache(
    tmp_path: Path, uncached: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.gguf"
    monkeypatch.setattr(disk, "_SAMPLE_BYTES", 4 << 20)
    model.write_bytes(bytes(4 << 20))
    assert disk.read_bandwidth(tmp_path, seconds=0.01) > 0
    assert uncached == [str(model)]


def test_direct_reads_of_experts_ask_for_no_caching(tmp_path: Path, uncached: list[str]) -> None:
    path = write_experts(tmp_path / "m.gguf", shards=2)
    with GGUFFile.open(path) as file, ExpertStore(file) as store:
        with ExpertReader(store, "pread", threads=1):
            assert uncached == []
        with ExpertReader(store, "direct", threads=1):
            assert uncached == [str(shard) for shard in file.shards]
