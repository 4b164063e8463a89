"""What this machine is and has, as far as it matters to running models.

Owns the facts and where they are read. What to make of them is said elsewhere.
"""

import os
import platform
import resource
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from moestream.errors import StorageError
from moestream.folders import config_dir, models_dir
from moestream.machine.darwin import sysctl
from moestream.machine.disk import read_bandwidth
from moestream.machine.processor import instruction_sets, processor_name
from moestream.reasons import reason_of
from moestream.streaming.memory import Memory, available_memory


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
        processor=f"{processor_name()} ({platform.machine()})",
        physical_cores=psutil.cpu_count(logical=False),
        usable_cores=_usable_cores(),
        cpu_flags=instruction_sets(),
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
        return Disk(folder, free, None, reason_of(error))


def _usable_cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _wired_limit_mb() -> int | None:
    told = sysctl("iogpu.wired_limit_mb") or ""
    return int(told) if told.isdecimal() else None


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft
