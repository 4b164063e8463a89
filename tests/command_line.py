"""Runs the command line as a person does: a process of its own."""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import IO, Any

COMMAND = [sys.executable, "-m", "moestream"]
Argument = str | bytes | Path

_LONGEST_S = 120


def run(
    *arguments: Argument,
    stdin: bytes | None = None,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end; standard input is empty unless given."""
    with (
        tempfile.TemporaryFile() as source,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as errors,
    ):
        source.write(stdin or b"")
        source.seek(0)
        words = [os.fsdecode(argument) for argument in arguments]
        files = [source, stdout or out, stderr or errors]
        # An interpreter reads its own variables as it starts; and macOS does not let a fork use
        # what was imported before it.
        anew = sys.platform == "darwin" or any(name.startswith("PYTHON") for name in env or {})
        status = (_start if anew else _fork)(words, files, _environment() | (env or {}))
        told = []
        for file in (out, errors):
            file.seek(0)
            told.append(file.read().decode())
    return subprocess.CompletedProcess([*COMMAND, *arguments], status, *told)


def usage_error(*arguments: Argument) -> str:
    """What is said of arguments that make no sense, in one line."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    return " ".join(done.stderr.split())


def start(*arguments: Argument, **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process that a test will interrupt."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        env=_environment(),
        **options,
    )


def wait_for_output(stream: IO[bytes] | None) -> bytes:
    """Block until the process has written something, and return it."""
    assert stream is not None
    return os.read(stream.fileno(), 1 << 16)


def _start(words: list[str], files: list[IO[bytes]], environment: dict[str, str]) -> int:
    source, out, errors = files
    streams = {"stdin": source, "stdout": out, "stderr": errors}
    command = [*COMMAND, *words]
    done = subprocess.run(command, **streams, env=environment, timeout=_LONGEST_S, check=False)
    return done.returncode


def _fork(words: list[str], files: list[IO[bytes]], environment: dict[str, str]) -> int:
    request = {"arguments": words, "environment": environment, "folder": str(Path.cwd())}
    server = _server()
    numbers = [file.fileno() for file in files]
    socket.send_fds(server, [json.dumps(request).encode() + b"\n"], numbers)
    answer = server.recv(16)
    if not answer:
        raise RuntimeError("tests/command_server.py has ended: see its standard error")
    return int(answer)


@cache
def _server() -> socket.socket:
    """Of this process alone; it ends with it."""
    ours, theirs = socket.socketpair()
    with theirs:
        program = Path(__file__).with_name("command_server.py")
        process = subprocess.Popen(
            [sys.executable, program, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # no terminal, which would make output line by line
            pass_fds=[theirs.fileno()],
            env=_environment(),
        )
    ours.settimeout(_LONGEST_S)

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _environment() -> dict[str, str]:
    # Buffered, as a person's is; and one thread for NumPy, for several tests may run at a time.
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return inherited | {"PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1"}
