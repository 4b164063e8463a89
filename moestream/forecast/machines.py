"""Machines by description: this one, one whose measurements lie in a file, or one in a few words.

Owns the words and what they stand for where something is left out.
"""

import json
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from moestream.errors import BudgetError, StorageError
from moestream.gguf import GGUFHeader
from moestream.machine.speeds import DiskSpeed, Speeds, known_speeds, load_speeds

CORE_BYTES_PER_S = 8e9
"""Weights that one core's kernels go through, where nothing is told of memory. Measured: 4 to 23
by processor and type (docs/performance.md)."""
MEMORY_BYTES_PER_S = 50e9
"""The most of all cores, if nothing else is told: two channels of DDR5."""
LAYER_S = 40e-6
"""Of a layer's calls. Measured on several processors: 30 to 90 us."""
LATENCY_S = 80e-6
_KEYS = "cores=8,disk=3.5G,latency=80us,memory=50G,layer=40us"
_TIME = re.compile(r"([0-9]*\.?[0-9]+)\s*(us|ms|s)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Described:
    """Speeds of a machine and its disk, and in words whose they are."""

    told: str
    speeds: Speeds
    disk: DiskSpeed


def machine_of(
    text: str,
    file: GGUFHeader,
    types: Collection[str],
    *,
    step: Callable[[str], None] = lambda name: None,
) -> Described:
    """Find a machine for a model whose weights are of these types.

    ``text`` is ``here``, the path of a file as ``plan`` keeps one of a machine, or keys and values
    such as ``cores=8,disk=3.5G,latency=80us``.

    Raises:
        BudgetError: it is none of these, or lacks what the model asks for.
        StorageError: the model has no experts, so no disk was looked at.
    """
    if text == "here":
        speeds, disk = known_speeds(file, types, step=step)
        if disk is None:
            raise StorageError(f"{file.path}: has no experts, so there is nothing to stream")
        return Described("this machine", speeds, disk)
    if "=" in text:
        return _from_words(text, types)
    return _from_file(Path(text), types)


def _from_file(path: Path, types: Collection[str]) -> Described:
    try:
        whose = json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError):
        whose = None
    speeds = None if whose is None else load_speeds(path, whose)
    if speeds is None:
        raise BudgetError(
            f"--machine {path}: no file of a machine's speeds; expected here, a machine.json that "
            f"plan wrote, or {_KEYS}"
        )
    if missing := sorted(set(types) - set(speeds.kernel_bytes_per_s)):
        raise BudgetError(
            f"--machine {path}: was not measured with {', '.join(missing)}; run moestream plan "
            "with this model there"
        )
    if not speeds.disks:
        raise BudgetError(f"--machine {path}: no disk was measured; run moestream plan there")
    disk = max(speeds.disks.values(), key=lambda disk: disk.bytes_per_s)
    return Described(str(path), speeds, disk)


def _from_words(text: str, types: Collection[str]) -> Described:
    values: dict[str, float] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        reader = _READERS.get(key.strip())
        if reader is None:
            raise BudgetError(f"--machine has no {key.strip()!r}; expected some of {_KEYS}")
        values[key.strip()] = _positive(part, reader, value.strip())
    if "disk" not in values:
        raise BudgetError(f"--machine {text} has no disk; expected something like {_KEYS}")
    cores = values.get("cores", 8)
    memory = values.get("memory", MEMORY_BYTES_PER_S)
    kernel = min(memory, cores * CORE_BYTES_PER_S)
    speeds = Speeds(
        fingerprint={"threads": int(cores)},
        measured="2000-01-01",
        memory_bytes_per_s=memory,
        layer_s=values.get("layer", LAYER_S),
        streamed_layer_s=0.0,
        kernel_bytes_per_s=dict.fromkeys(types, kernel),
    )
    return Described(text, speeds, DiskSpeed(values.get("latency", LATENCY_S), values["disk"]))


def _positive(part: str, reader: Callable[[str], float], value: str) -> float:
    try:
        found = reader(value)
    except (ValueError, BudgetError):
        found = 0.0
    if not 0 < found < math.inf:
        raise BudgetError(f"--machine {part}: expected something like {_KEYS}")
    return found


def _seconds(text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return float(match[1]) * _UNITS[match[2]]


def _bytes_per_s(text: str) -> float:
    """Speeds of disks and memory are decimal, as their makers tell them."""
    units = {"K": 1e3, "M": 1e6, "G": 1e9}
    return float(text[:-1]) * units[text[-1].upper()] if text[-1:].upper() in units else float(text)


_READERS: dict[str, Callable[[str], float]] = {
    "cores": lambda text: float(int(text)),
    "memory": _bytes_per_s,
    "disk": _bytes_per_s,
    "latency": _seconds,
    "layer": _seconds,
}
