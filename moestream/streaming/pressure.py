"""Gives memory back before the system takes it, or the process.

Owns the reading of the system's figures, at most once a second, and the decision from them. Knows
nothing of where experts lie: ``give_back`` is told how many bytes. Nothing runs in the background;
the decode path calls ``check``.

Source: Linux Documentation/accounting/psi.rst; ``full`` is the share of time that all tasks waited
for memory.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from moestream.streaming.memory import available_memory, memory_groups

_INTERVAL_S = 1.0
_LEAST_ROOM = 0.05
"""Share of all memory below which some is given back at once."""
_GOOD_ROOM = 0.08
"""Share that is made available then, and below which waiting for memory counts."""
_MOST_WAITING = 0.10
"""Share of the last ten seconds. Waiting alone tells nothing: page faults of a mapped model do."""


class Pressure(NamedTuple):
    """What is left of the tightest limit, and the share of time spent waiting for memory."""

    total_bytes: int
    available_bytes: int
    waiting: float = 0.0


def bytes_to_give(now: Pressure) -> int:
    """How many bytes to give back: 0 unless little is left."""
    room = now.available_bytes / now.total_bytes
    if room >= _GOOD_ROOM or (room >= _LEAST_ROOM and now.waiting < _MOST_WAITING):
        return 0
    return int(now.total_bytes * _GOOD_ROOM) - now.available_bytes


def read_pressure(
    process: Path = Path("/proc/self"),
    cgroups: Path = Path("/sys/fs/cgroup"),
    machine: Path = Path("/proc/pressure/memory"),
) -> Pressure:
    """Look at the machine and at the cgroups above this process; what is missing is no pressure."""
    memory = available_memory(process, cgroups)
    files = [machine, *(group / "memory.pressure" for group in _folders(process, cgroups))]
    waiting = max(map(_waiting, files))
    return Pressure(memory.total_bytes, memory.available_bytes, waiting)


class PressureValve:
    """Calls ``give_back`` with a number of bytes when memory runs short."""

    def __init__(
        self,
        give_back: Callable[[int], int],
        *,
        read: Callable[[], Pressure] = read_pressure,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.given_bytes = 0
        self._give_back, self._read, self._clock = give_back, read, clock
        self._last_s = clock()

    def check(self) -> None:
        """Look at the figures, unless that was done less than a second ago."""
        now_s = self._clock()
        if now_s - self._last_s < _INTERVAL_S:
            return
        self._last_s = now_s
        n_bytes = bytes_to_give(self._read())
        if n_bytes:
            self.given_bytes += self._give_back(n_bytes)


def _folders(process: Path, cgroups: Path) -> Iterator[Path]:
    return (folder for folder, _ in memory_groups(process, cgroups))


def _waiting(path: Path) -> float:
    """``avg10`` of the line ``full avg10=0.00 ...``, as a share."""
    try:
        lines = path.read_text().splitlines()
    except OSError:  # before Linux 4.20, or not Linux
        return 0.0
    words = next((line.split() for line in lines if line.startswith("full ")), [])
    return next((float(w[6:]) / 100 for w in words if w.startswith("avg10=")), 0.0)
