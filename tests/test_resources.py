"""Threads and memory that the system does not give are errors, not the end of the process."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("moestream._native", reason="needs the compiled part")

GOLDEN = Path(__file__).parent / "data" / "golden" / "qwen3moe.gguf"

_LIMITED = """
import resource, sys
import numpy
from moestream.errors import MoestreamError
from moestream.engine.engine import Engine
from moestream.streaming.options import StreamingOptions
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)
try:
    with Engine.open(sys.argv[1], backend="cpu", threads=1000) as engine:
        print("ran")
except (MoestreamError, MemoryError) as error:
    print(type(error).__name__, error)
with Engine.open(sys.argv[1], backend="cpu", threads=2) as engine:
    print(len(engine.session().forward([1, 2, 3])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space")
def test_threads_that_cannot_be_made_are_an_error_and_fewer_work() -> None:
    command = [sys.executable, "-c", _LIMITED, str(GOLDEN)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("ResourceError 1000 threads cannot be started")
    assert "-t" in first
    assert second == "3"
