"""What this machine gives a model, measured once and kept.

Owns the file that it is kept in, in the folder of all that is cached, and when it is good for
nothing any more: on another machine, with other cores or memory, or after an update. How things are
measured is ``calibration``'s.
"""

import json
import statistics
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psutil

from moestream import __version__
from moestream.backends.cpu import CpuBackend
from moestream.folders import cache_dir, models_dir, replacing, require_writable
from moestream.gguf import GGUFFile, GGUFHeader
from moestream.machine import batches, calibration
from moestream.machine.processor import processor_name
from moestream.streaming.store import expert_sizes

_NAME = "machine.json"
_USUAL_EXPERT_BYTES = 2_800_000
"""One of Qwen3-30B-A3B in four bits."""
_STEADY = 1.3
"""Times that a second measurement may differ from the first, where nothing else runs."""


@dataclass(frozen=True, slots=True)
class DiskSpeed:
    """A disk, as experts are read from it."""

    latency_s: float
    bytes_per_s: float
    again_bytes_per_s: float | None = field(default=None, compare=False)
    """In another measurement, right after or before."""

    @property
    def is_steady(self) -> bool:
        """Whether both say about the same."""
        return _agree(self.bytes_per_s, self.again_bytes_per_s)


@dataclass(slots=True)
class Speeds:
    """Speeds of all threads together; ``layer_s`` is what a layer costs beside its bytes."""

    fingerprint: dict[str, str | int]
    measured: str
    memory_bytes_per_s: float
    layer_s: float
    streamed_layer_s: float
    """What streaming adds to it."""
    kernel_bytes_per_s: dict[str, float] = field(default_factory=dict)
    """By quantisation type."""
    batch_bytes_per_s: dict[str, float] = field(default_factory=dict)
    """The same times tokens, where many are multiplied at once."""
    attention_macs_per_s: float = 0.0
    """Multiplications of a prompt's queries with keys, and of weights with values."""
    disks: dict[str, DiskSpeed] = field(default_factory=dict)
    """By the device that a file lies on."""
    again_bytes_per_s: float | None = field(default=None, compare=False)
    """Of memory in another measurement: at the end of the first, or of now if that was before."""

    @property
    def is_steady(self) -> bool:
        """Whether both measurements of memory say about the same."""
        return _agree(self.memory_bytes_per_s, self.again_bytes_per_s)

    def age_days(self, today: date | None = None) -> int:
        """How long ago it was measured."""
        return ((today or datetime.now(UTC).date()) - date.fromisoformat(self.measured)).days


def measured_speeds() -> tuple[Speeds | None, DiskSpeed | None]:
    """What was measured before, of this machine and of the disk that models are kept on."""
    speeds = load_speeds(cache_dir() / _NAME, fingerprint(CpuBackend()))
    return speeds, None if speeds is None else speeds.disks.get(_device(_models_folder()))


def known_speeds(
    file: GGUFHeader | None,
    types: Collection[str],
    *,
    anew: bool = False,
    step: Callable[[str], None] = lambda name: None,
) -> tuple[Speeds, DiskSpeed | None]:
    """Tell of this machine and the disk under ``file``, None if the file has no experts.

    Of a model that is not here, and of none, it is the disk that models are kept on.
    What is not known yet is measured, and all of it if ``anew``; ``step`` is told of it. Memory is
    measured a second time, whenever that is: a busy moment shows by how much the two differ.
    """
    folder = cache_dir()
    backend = CpuBackend()
    speeds = None if anew else load_speeds(folder / _NAME, fingerprint(backend))
    before = None if speeds is None else asdict(speeds)
    if speeds is None:
        step("measuring memory and kernels")
        memory = calibration.memory_speed(backend)
        with _writable(folder) as scratch:
            layer_s, streamed_s = calibration.layer_costs(scratch)
        again = calibration.memory_speed(backend)
        speeds = Speeds(
            fingerprint=fingerprint(backend),
            measured=datetime.now(UTC).strftime("%Y-%m-%d"),
            memory_bytes_per_s=max(memory, again),
            layer_s=layer_s,
            streamed_layer_s=streamed_s,
            again_bytes_per_s=min(memory, again),
        )
    if missing := sorted(set(types) - set(speeds.kernel_bytes_per_s)):
        step("measuring kernels")
        speeds.kernel_bytes_per_s |= calibration.kernel_speeds(
            backend, missing, speeds.memory_bytes_per_s
        )
    _measure_batches(speeds, backend, types, step)
    disk = _disk(speeds, file, step)
    if asdict(speeds) != before:
        with suppress(OSError):  # then it is measured again the next time
            save_speeds(folder / _NAME, speeds)
    if before is not None and speeds.is_steady:
        speeds.again_bytes_per_s = calibration.memory_speed(backend)
    return speeds, disk


def _measure_batches(
    speeds: Speeds, backend: CpuBackend, types: Collection[str], step: Callable[[str], None]
) -> None:
    """Add what is not known yet of how fast prompts are."""
    if missing := sorted(set(types) - set(speeds.batch_bytes_per_s)):
        step("measuring products of many tokens")
        speeds.batch_bytes_per_s |= batches.batch_speeds(backend, missing)
    if not speeds.attention_macs_per_s:
        step("measuring attention")
        with _writable(cache_dir()) as scratch:
            speeds.attention_macs_per_s = batches.attention_speed(scratch)


@contextmanager
def _writable(folder: Path) -> Iterator[Path]:
    """The folder, made if it is not there; a temporary one where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_writable(folder / _NAME)
    except OSError:
        with tempfile.TemporaryDirectory() as other:
            yield Path(other)
    else:
        yield folder


def fingerprint(backend: CpuBackend) -> dict[str, str | int]:
    """What must be the same for a measurement to hold."""
    return {
        "version": __version__,
        "processor": processor_name(),
        "isa": backend.isa,
        "threads": backend.threads,
        "memory_bytes": psutil.virtual_memory().total,
    }


def load_speeds(path: Path, wanted: dict[str, str | int]) -> Speeds | None:
    """Read what was measured; None if there is nothing, or it is of another machine or damaged."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        disks = {key: DiskSpeed(**disk) for key, disk in values.pop("disks").items()}
        speeds = Speeds(**values, disks=disks)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return speeds if speeds.fingerprint == wanted else None


def save_speeds(path: Path, speeds: Speeds) -> None:
    """Write what was measured, whole or not at all."""
    with replacing(path) as file:
        file.write(json.dumps(asdict(speeds), indent=1) + "\n")


def _models_folder() -> Path:
    return next(path for path in (models_dir(), *models_dir().parents) if path.is_dir())


def _device(folder: Path) -> str:
    return f"device {folder.stat().st_dev}"


def _disk(speeds: Speeds, file: GGUFHeader | None, step: Callable[[str], None]) -> DiskSpeed | None:
    sizes = (_USUAL_EXPERT_BYTES,) if file is None else tuple(expert_sizes(file).values())
    if not sizes:
        return None
    here = file if isinstance(file, GGUFFile) else None
    folder = _models_folder()
    key = _device(folder) if here is None else f"device {here.statuses[0].st_dev}"
    if key not in speeds.disks:
        step("measuring the disk")
        size = int(statistics.fmean(sizes))

        def measure() -> tuple[float, float]:
            if here is not None:
                return calibration.disk_costs(here)
            with _writable(folder) as scratch:
                return calibration.disk_costs_of_folder(scratch, size)

        other, best = sorted((measure(), measure()), key=lambda costs: costs[1])
        speeds.disks[key] = DiskSpeed(*best, again_bytes_per_s=other[1])
    return speeds.disks[key]


def _agree(first: float, second: float | None) -> bool:
    return second is None or max(first, second) <= _STEADY * min(first, second)
