"""Runs the command line as a person does: a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

COMMAND = [sys.executable, "-m", "moestream"]
Argument = str | bytes | Path


def run(
    *arguments: Argument, stdin: bytes | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run to the end; standard input is empty unless given."""
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done = subprocess.run(
        [*COMMAND, *arguments],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
        env=_environment() | options.pop("env", {}),
        **source,
        **options,
    )
    out = done.stdout.decode() if done.stdout is not None else ""
    return subprocess.CompletedProcess(done.args, done.returncode, out, done.stderr.decode())


def start(*arguments: Argument, **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process that a test will interrupt."""
    # What is ignored here (as in a background job of a shell) would be ignored there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        **options,
    )


def wait_for_output(stream: IO[bytes] | None) -> bytes:
    """Block until the process has written something, and return it."""
    assert stream is not None
    return os.read(stream.fileno(), 1 << 16)


def _environment() -> dict[str, str]:
    # Buffered, as a person's is; and one thread for NumPy, for several tests may run at a time.
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return inherited | {"PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1"}
