"""Runs of programs from a cold page cache under a memory cap, and what the disk can do.

Owns processes and their measures; what is run and how it is compared is the callers' affair.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.cgroups import cgroup
from moestream.streaming.page_cache import drop_pages

Run = dict[str, Any]

MOESTREAM = [sys.executable, "-P", "-m", "moestream"]
"""The installed command: ``-P`` keeps a checkout that is the current folder out of it."""

_READ_BYTES = 1 << 20
_READERS = (4, 16)


def mebibytes(text: str) -> int:
    """Read ``700M`` or ``1.4G``."""
    return int(float(text[:-1]) * {"M": 1, "G": 1024}[text[-1].upper()])


def budget_under(cap_mib: int) -> str:
    """The budget that leaves a process some room under its cap."""
    return f"{int(cap_mib / 1.1)}M"


def arguments(description: str, repeat: int) -> argparse.ArgumentParser:
    """The options that every benchmark under a cap has."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=repeat)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--timeout", type=float, default=180.0, help="of one run, in seconds")
    return parser


def child_command(program: str, spec: Run) -> list[str]:
    """The command that runs a benchmark's own file as a child of it, which is told ``spec``."""
    return [sys.executable, program, "--child", json.dumps(spec)]


def main_or_child(main: Callable[[], None], child: Callable[[Run], None]) -> None:
    """Run a benchmark, or the one measurement that its command line makes it the child for."""
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]))
    else:
        main()


@contextmanager
def caps_needed() -> Iterator[None]:
    """Exit with what to do about it where memory cannot be capped."""
    try:
        yield
    except OSError as error:
        sys.exit(f"no run under a memory cap is possible here: {error}; it takes root, on Linux")


def run_reporting(command: list[str], cap_mib: int | None, model: Path, limit_s: float) -> Run:
    """Like ``run_capped``, of a program whose last line is JSON: what it told is added."""
    done = run_capped(command, cap_mib, model, limit_s)
    out = done.pop("out", None)
    return done if out is None else {**json.loads(out.splitlines()[-1]), **done}


def run_capped(command: list[str], cap_mib: int | None, model: Path, limit_s: float) -> Run:
    """Run a command from a cold cache, capped or not: what it printed, and what it took."""
    drop_pages([model])
    if cap_mib is None:
        return _run(command, limit_s)
    with cgroup("memory") as group:
        group.limit_memory(cap_mib << 20)
        return _run(group.enter(command), limit_s)


def _run(command: list[str], limit_s: float) -> Run:
    """Run a command; its peak memory and the bytes that it read from the disk, as wait4 tells."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        started, status = time.monotonic(), None
        while status is None:
            pid, code, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                status = os.waitstatus_to_exitcode(code)
            elif time.monotonic() - started > limit_s:
                process.kill()
                os.wait4(process.pid, 0)
                process.returncode = -9
                return {"error": f"not done after {limit_s:.0f} s"}
            else:
                time.sleep(0.02)
        process.returncode = status
        out.seek(0)
        errors.seek(0)
        if status:
            return {"error": (errors.read().strip().splitlines() or [f"ended with {status}"])[-1]}
        peak = {"peak_mib": usage.ru_maxrss / 1024, "disk_bytes": usage.ru_inblock * 512}
        return {"out": out.read(), **peak}


def disk_bytes() -> int:
    """Bytes that this process had the disk read, page faults included."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def disk_speed(path: Path) -> float:
    """Bytes a second of large reads around the page cache, at random places, many at once."""
    return max(_disk_speed(path, readers, n_reads=512) for readers in _READERS)


def _disk_speed(path: Path, readers: int, n_reads: int) -> float:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    places = [random.randrange(path.stat().st_size // _READ_BYTES) for _ in range(n_reads)]

    def read(share: list[int]) -> None:
        buffer = mmap.mmap(-1, _READ_BYTES)
        for place in share:
            os.preadv(descriptor, [buffer], place * _READ_BYTES)

    started = time.perf_counter()
    with ThreadPoolExecutor(readers) as pool:
        list(pool.map(read, [places[i::readers] for i in range(readers)]))
    os.close(descriptor)
    return n_reads * _READ_BYTES / (time.perf_counter() - started)
