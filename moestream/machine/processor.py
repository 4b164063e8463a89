"""The processor, as the system tells it: its name and what it can do."""

import platform
from pathlib import Path

from moestream.machine.darwin import sysctl

_CPUINFO = Path("/proc/cpuinfo")
_USED = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "asimd", "i8mm")
"""Instruction sets that some kernel could use."""
_OF_DARWIN = {"asimd": "hw.optional.AdvSIMD", "i8mm": "hw.optional.arm.FEAT_I8MM"}
"""What macOS calls those of ARM. Source: Apple's "Determining instruction set characteristics"."""


def processor_name() -> str:
    """What it is called."""
    told = _fields(_CPUINFO).get("model name") or sysctl("machdep.cpu.brand_string")
    return told or platform.processor() or platform.machine()


def instruction_sets(path: Path | None = None) -> list[str]:
    """Those that some kernel could use."""
    fields = _fields(path or _CPUINFO)
    found = {*fields.get("flags", "").split(), *fields.get("Features", "").split()}
    found |= {ours for ours, theirs in _OF_DARWIN.items() if sysctl(theirs) == "1"}
    return [name for name in _USED if name in found]


def _fields(path: Path) -> dict[str, str]:
    """What is told of the first core; nothing where the system has no such file."""
    try:
        first, _, _ = path.read_text(encoding="utf-8").partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
