"""What this machine gives a model, measured once and kept.

Owns the file that it is kept in, in the folder of all that is cached, and when it is good for
nothing any more: on another machine, with other cores or memory, or after an update. How things are
measured is ``calibration``'s.
"""

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from moestream import __version__
from moestream.backends.cpu import CpuBackend
from moestream.folders import cache_dir, models_dir
from moestream.gguf import GGUFFile, GGUFHeader
from moestream.machine import calibration
from moestream.streaming.store import expert_sizes

_NAME = "machine.json"


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk, as experts are read from it."""

    latency_s: float
    bytes_per_s: float


@dataclass(slots=True)
class Machine:
    """Speeds of all threads together; ``layer_s`` is what a layer costs beside its bytes."""

    fingerprint: dict[str, str | int]
    measured: str
    memory_bytes_per_s: float
    layer_s: float
    streamed_layer_s: float
    """What streaming adds to it."""
    kernel_bytes_per_s: dict[str, float] = field(default_factory=dict)
    """By quantisation type."""
    disks: dict[str, Disk] = field(default_factory=dict)
    """By the device that a file lies on."""


def known_machine(
    file: GGUFHeader,
    types: Iterable[str],
    *,
    anew: bool = False,
    step: Callable[[str], None] = lambda name: None,
) -> tuple[Machine, Disk | None]:
    """Tell of this machine and the disk under ``file``, None if the file has no experts.

    Of a model that is not here, it is the disk that models are kept on.
    What is not known yet is measured, and all of it if ``anew``; ``step`` is told of it.
    """
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    backend = CpuBackend()
    machine = None if anew else load_machine(folder / _NAME, fingerprint(backend))
    before = None if machine is None else asdict(machine)
    if machine is None:
        step("measuring memory and kernels")
        layer_s, streamed_s = calibration.layer_costs(folder)
        machine = Machine(
            fingerprint=fingerprint(backend),
            measured=datetime.now(UTC).strftime("%Y-%m-%d"),
            memory_bytes_per_s=calibration.memory_speed(backend),
            layer_s=layer_s,
            streamed_layer_s=streamed_s,
        )
    if missing := sorted(set(types) - set(machine.kernel_bytes_per_s)):
        step("measuring kernels")
        machine.kernel_bytes_per_s |= calibration.kernel_speeds(
            backend, missing, machine.memory_bytes_per_s
        )
    disk = _disk(machine, file, step)
    if asdict(machine) != before:
        save_machine(folder / _NAME, machine)
    return machine, disk


def fingerprint(backend: CpuBackend) -> dict[str, str | int]:
    """What must be the same for a measurement to hold."""
    return {
        "version": __version__,
        "processor": _processor(),
        "isa": backend.isa,
        "threads": backend.threads,
        "memory_bytes": psutil.virtual_memory().total,
    }


def load_machine(path: Path, wanted: dict[str, str | int]) -> Machine | None:
    """Read what was measured; None if there is nothing, or it is of another machine or damaged."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        disks = {key: Disk(**disk) for key, disk in values.pop("disks").items()}
        machine = Machine(**values, disks=disks)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return machine if machine.fingerprint == wanted else None


def save_machine(path: Path, machine: Machine) -> None:
    """Write what was measured, whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(asdict(machine), indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _disk(machine: Machine, file: GGUFHeader, step: Callable[[str], None]) -> Disk | None:
    sizes = expert_sizes(file)
    if not sizes:
        return None
    here = file if isinstance(file, GGUFFile) else None
    folder = next(path for path in (models_dir(), *models_dir().parents) if path.is_dir())
    device = folder.stat().st_dev if here is None else here.statuses[0].st_dev
    key = f"device {device}"
    if key not in machine.disks:
        step("measuring the disk")
        if here is not None:
            costs = calibration.disk_costs(here)
        else:
            size = int(statistics.fmean(sizes.values()))
            costs = calibration.disk_costs_of_folder(folder, size)
        machine.disks[key] = Disk(*costs)
    return machine.disks[key]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
