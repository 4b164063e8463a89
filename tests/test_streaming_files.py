"""A file that changes, a disk that fails, a limit, a Ctrl-C: errors, and nothing left behind."""

import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from stalled import check_interrupted

pytest.importorskip("moestream._native", reason="needs the compiled part")

from streamed import (
    GOLDEN,
    count,
    logits,
    open_engine,
    options_of,
    plan,
    resident_logits,
    sample_tokens,
)

from moestream.choices import READ_METHODS
from moestream.engine.engine import Engine
from moestream.errors import ModelFormatError, StorageError


@pytest.fixture
def copied(tmp_path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes((GOLDEN / "qwen3moe.gguf").read_bytes())
    return path


@pytest.mark.parametrize("io", READ_METHODS)
def test_a_file_cut_short_while_it_runs_is_an_error(copied, io):
    with Engine.open(copied, backend="reference", context_length=128) as engine:
        engine.stream(plan(1 << 14), options_of(io=io))
        session = engine.session()
        session.forward(sample_tokens()[:10])
        os.truncate(copied, copied.stat().st_size // 2)
        with pytest.raises(ModelFormatError, match="open it again"):
            session.forward(sample_tokens()[10:11])


def test_a_file_replaced_while_it_runs_does_no_harm(copied, tmp_path):
    with Engine.open(copied, backend="reference", context_length=128) as engine:
        engine.stream(plan(1 << 14), options_of())
        other = tmp_path / "other"
        other.write_bytes(b"no model")
        other.replace(copied)
        np.testing.assert_array_equal(logits(engine), resident_logits("qwen3moe", "reference"))


@pytest.mark.parametrize("io", ["pread", "direct"])
def test_a_disk_error_is_an_error_and_the_next_try_works(io):
    with open_engine("qwen3moe") as engine:
        engine.stream(plan(1 << 14), options_of(io=io))
        session = engine.session()
        session.forward(sample_tokens()[:10])
        expected = session.forward(sample_tokens()[10:20])
        session.truncate(10)
        engine.streaming.residency.reader.inject(error=errno.EIO)
        with pytest.raises(StorageError, match="Input/output error"):
            session.forward(sample_tokens()[10:20])
        engine.streaming.residency.reader.inject()
        np.testing.assert_array_equal(session.forward(sample_tokens()[10:20]), expected)


def test_opening_and_closing_leaves_nothing_behind():
    def held() -> tuple[int, int, str]:
        status = Path("/proc/self/status")
        locked = "".join(
            line for line in status.read_text().splitlines() if line.startswith("VmLck")
        )
        return count("/dev/fd"), count("/proc/self/task"), locked

    if sys.platform != "linux":
        pytest.skip("counts by /proc")
    with open_engine("qwen3moe") as engine:  # what is opened once for all
        engine.stream(plan(1 << 16), options_of())
        logits(engine)
    before = held()
    for turn in range(200):
        with open_engine("qwen3moe") as engine:
            engine.stream(plan(1 << 16), options_of(io=READ_METHODS[turn % 3]))
            engine.session().forward(sample_tokens()[:3])
    deadline = time.monotonic() + 5
    while held() != before and time.monotonic() < deadline:
        time.sleep(0.01)  # the system may list a thread for a moment after it was joined
    assert held() == before


_LIMITED = """
import ctypes, resource, sys
from moestream.engine.engine import Engine
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions
def drop_right_to_lock():
    # Root may lock what it likes, by CAP_IPC_LOCK (14); capget(2) of version 3.
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~(1 << 14)
    assert libc.capset(header, sets) == 0
limit = int(sys.argv[2])
with Engine.open(sys.argv[1], backend="reference", context_length=128) as engine:
    session = engine.session()
    resident = session.forward([1, 2, 3])
    session.truncate(0)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    drop_right_to_lock()
    plan = MemoryPlan(1 << 30, 0, 1 << 20, 0, 1 << 30, 1, 1)
    engine.stream(plan, StreamingOptions(io="madvise", pin="mlock"))
    streamed = session.forward([1, 2, 3])
    print(engine.streaming.choices.pin, (streamed == resident).all())
"""


@pytest.mark.parametrize(
    ("limit", "pin"),
    [(0, "none"), (40 << 10, "mlock"), (8 << 20, "mlock"), (resource.RLIM_INFINITY, "mlock")],
)
def test_a_pin_limit_is_lived_with(limit, pin):
    path = GOLDEN / "qwen3moe.gguf"
    command = [sys.executable, "-c", _LIMITED, str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "not allowed to raise maximum limit" in done.stderr:
        pytest.skip(f"this process may not raise its limit of locked memory to {limit}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [pin, "True"]


_STALLED = """
import signal, sys
# A job in the background of a shell starts with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from moestream.engine.engine import Engine
from moestream.streaming.memory import MemoryPlan
from moestream.streaming.options import StreamingOptions
with Engine.open(sys.argv[1], backend="reference", context_length=128) as engine:
    engine.stream(MemoryPlan(1 << 30, 0, 0, 0, 1 << 14, 1, 1), StreamingOptions(io="pread"))
    engine.streaming.residency.reader.inject(delay_s=60)
    print("waiting", flush=True)
    try:
        engine.session().forward([1, 2, 3])
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_ends_a_stall():
    check_interrupted(_STALLED, GOLDEN / "qwen3moe.gguf")
