"""What this machine is and has, as far as it matters to running models.

Owns the facts and where they are read. What to make of them is said elsewhere.
"""

import os
import platform
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from moestream.errors import StorageError
from moestream.folders import config_dir, models_dir
from moestream.machine.disk import read_bandwidth
from moestream.streaming.memory import Memory, available_memory

_CPU_FLAGS = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "asimd", "i8mm")


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk of a folder; ``error`` says why its speed, in bytes a second, is None."""

    folder: Path
    free_bytes: int
    bandwidth: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts. Sizes are in bytes, None where there is no limit."""

    system: str
    processor: str
    physical_cores: int | None
    usable_cores: int
    """Logical processors that this process may run on."""
    cpu_flags: list[str]
    memory: Memory
    machine_bytes: int
    swap_bytes: int
    locked_limit_bytes: int | None
    open_files_limit: int | None
    models: Disk
    config: Path
    wired_limit_mb: int | None = None
    """``iogpu.wired_limit_mb``: GPU memory that macOS lets be wired, 0 for its own choice."""


def look(*, measure: bool = True) -> Machine:
    """Look at this machine; with ``measure``, read from the models' disk for half a second."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        physical_cores=psutil.cpu_count(logical=False),
        usable_cores=_usable_cores(),
        cpu_flags=_cpu_flags(Path("/proc/cpuinfo")),
        memory=available_memory(),
        machine_bytes=psutil.virtual_memory().total,
        swap_bytes=psutil.swap_memory().total,
        locked_limit_bytes=_limit(resource.RLIMIT_MEMLOCK),
        open_files_limit=_limit(resource.RLIMIT_NOFILE),
        models=_disk(models_dir(), measure),
        config=config_dir(),
        wired_limit_mb=_wired_limit_mb(),
    )


def _disk(folder: Path, measure: bool) -> Disk:
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if not measure:
        return Disk(folder, free, None, "not measured")
    try:
        return Disk(folder, free, read_bandwidth(folder), None)
    except (StorageError, OSError) as error:
        return Disk(folder, free, None, str(error))


def _usable_cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'} ({platform.machine()})"


def _cpu_flags(path: Path) -> list[str]:
    """Those of a processor's instruction sets that some kernel could use."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    found = set(flags.partition(":")[2].split())
    return [flag for flag in _CPU_FLAGS if flag in found]


def _wired_limit_mb() -> int | None:
    if sys.platform != "darwin":
        return None
    asked = ["/usr/sbin/sysctl", "-n", "iogpu.wired_limit_mb"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.stdout.strip().isdecimal() else None


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft
