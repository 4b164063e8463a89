"""Shared: several ranks of one command on this machine, with links between them that may be slow.

Owns how they find each other and what is known of them at the end. What they run is the callers'.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # scripts/: its folders are packages
from bench.cgroups import cgroup
from bench.slow_link import free_port, slow_link


@dataclass(frozen=True)
class Ended:
    """One rank: what it wrote, and the most memory that it took."""

    out: str
    peak_bytes: int


@contextmanager
def environments(ranks: int, delay_ms: float, gbit: float) -> Iterator[list[dict[str, str]]]:
    """What tells each rank where the others are: the next one, at the near end of a slow link."""
    ports = [free_port() for _ in range(ranks)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = []
        for rank in range(ranks):
            following = (rank + 1) % ranks
            addresses = list(ports)
            if delay_ms or gbit:
                link = slow_link(ports[following], delay_ms / 1e3, gbit * 1e9 / 8)
                addresses[following] = stack.enter_context(link)
            path = folder / f"{rank}.json"
            path.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in addresses]))
            found.append(os.environ | {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(path)})
        yield found


def run_ranks(
    command: list[str], ranks: int, delay_ms: float = 0, gbit: float = 0, cap_mib: int = 0
) -> list[Ended]:
    """Run a command on each rank, under a memory cap each if there is one; one rank is alone.

    Raises:
        subprocess.CalledProcessError: a rank failed.
    """
    with ExitStack() as stack:
        places = [dict(os.environ)]
        if ranks > 1:
            places = stack.enter_context(environments(ranks, delay_ms, gbit))
        outs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in places]
        started = []
        for place, out in zip(places, outs, strict=True):
            own = command
            if cap_mib:
                group = stack.enter_context(cgroup("memory"))
                group.limit_memory(cap_mib << 20)
                own = group.enter(command)
            started.append(subprocess.Popen(own, env=place, stdout=out, stderr=sys.stderr))
        return [_end(command, *pair) for pair in zip(started, outs, strict=True)]


def _end(command: list[str], process: subprocess.Popen[bytes], out: object) -> Ended:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    out.seek(0)  # type: ignore[attr-defined]
    return Ended(out.read(), usage.ru_maxrss * 1024)  # type: ignore[attr-defined]
