"""Cgroups for benchmarks and fault tests: a memory limit, or a slow disk, for one process.

Owns making them (version 1 or 2), entering them and removing them. They are removed when this
process ends in whatever way: a shell waits on a pipe that closes with it.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_numbers = itertools.count()
_CLEANER = """
read nothing  # nothing is ever written: this ends with the process at the pipe's other end
for try in 1 2 3 4 5 6 7 8 9 10; do
    for pid in $(cat "$0/cgroup.procs"); do kill -9 "$pid"; done
    rmdir "$0" 2>/dev/null && exit
    sleep 0.1
done
"""


@dataclass(frozen=True, slots=True)
class Group:
    """A cgroup of our own; ``is_v1`` says how its files are called."""

    folder: Path
    is_v1: bool

    def limit_memory(self, n_bytes: int) -> None:
        """Set the limit of all memory, page cache included; lowering it evicts."""
        name = "memory.limit_in_bytes" if self.is_v1 else "memory.max"
        (self.folder / name).write_text(str(n_bytes))

    def limit_reads(self, device: str, bytes_per_s: int) -> None:
        """Slow the reads of a disk, named as ``major:minor``, down."""
        if self.is_v1:
            text, name = f"{device} {bytes_per_s}", "blkio.throttle.read_bps_device"
        else:
            text, name = f"{device} rbps={bytes_per_s}", "io.max"
        (self.folder / name).write_text(text)

    def enter(self, command: list[str]) -> list[str]:
        """A command that runs ``command`` in here, from its first page on."""
        script = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", script, str(self.folder), *command]


def disk_of(path: Path) -> str:
    """``major:minor`` of the whole disk that holds a file.

    Raises:
        OSError: the file is on none.
    """
    number = path.stat().st_dev
    folder = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not folder.exists():
        raise OSError(f"{path} is on no disk that could be slowed down")
    folder = folder.resolve()
    whole = folder.parent if (folder / "partition").exists() else folder
    return (whole / "dev").read_text().strip()


@contextmanager
def cgroup(controller: str) -> Iterator[Group]:
    """Make a group for ``memory`` or ``io``, and remove it afterwards with all that is in it.

    Raises:
        OSError: cgroups cannot be made here: this needs root, and Linux.
    """
    old = ROOT / {"io": "blkio"}.get(controller, controller)
    is_v1 = (old / "cgroup.procs").exists()
    if not is_v1:
        found = (ROOT / "cgroup.controllers").read_text().split()
        if controller not in found:
            raise OSError(f"the controller {controller!r} is not to be had here")
        (ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
    folder = (old if is_v1 else ROOT) / f"moestream_{os.getpid()}_{next(_numbers)}"
    folder.mkdir()
    cleaner = subprocess.Popen(
        ["sh", "-c", _CLEANER, str(folder)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is not for it
    )
    try:
        yield Group(folder, is_v1)
    finally:
        cleaner.communicate()
